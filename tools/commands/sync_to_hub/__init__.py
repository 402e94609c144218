"""The executable `tools/sync-to-hub`: its command line, and what it shows."""
