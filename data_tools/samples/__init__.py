"""Samples of a dataset and the order in which ranks read them: arithmetic, no index files."""
