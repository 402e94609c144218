"""The executable `tools/checkpoint`: its command line, and what it shows."""
