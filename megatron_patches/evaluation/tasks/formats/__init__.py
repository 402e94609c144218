"""Local files as tasks: how each format is read, asked and scored."""
