"""The executable `tools/generate`: its command line, and what it shows."""
