"""The runs under train/: their names, files and scripts; how people name them and their checkpoints."""
