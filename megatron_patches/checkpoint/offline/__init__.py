"""Checkpoints read and written outside a launch, on one process."""
