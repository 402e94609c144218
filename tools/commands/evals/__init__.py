"""The executable `tools/evals`: its command line, and what it shows."""
