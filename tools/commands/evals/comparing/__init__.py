"""Comparisons of evaluated checkpoints, and plans of evaluations: read, computed, told."""
