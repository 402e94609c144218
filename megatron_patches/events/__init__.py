"""The record of a run: its events, and the first cause of what went wrong."""
