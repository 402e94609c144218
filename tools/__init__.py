"""What command lines share: exit codes, what is printed and how it is escaped, tables, curves."""
