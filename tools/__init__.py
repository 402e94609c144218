"""What command lines share: exit codes, tables, curves."""
