"""The executable `tools/inventory`: its command line, and what it shows."""
