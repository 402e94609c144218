"""Tensors in the files of a checkpoint."""
