"""Architectures as lists of layers."""
