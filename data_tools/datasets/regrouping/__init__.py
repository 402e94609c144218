"""Datasets made of the documents of others, in constant memory: merged, split."""
