"""Hostile input: what others wrote, damaged at random, through every parser and door.

Every case ends in a right result or in one named error, within bounds of time and memory, and leaves what lies outside
the run as it was. `make test` tries the same cases each time; `python -m tests.hostile` tries new ones.
"""
