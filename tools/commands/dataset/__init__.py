"""The executable `tools/dataset`: its command line, and what it shows."""
