"""What was measured, as records, tables and pictures."""
