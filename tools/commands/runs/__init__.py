"""The executable `tools/runs`: its command line, and what it shows."""
