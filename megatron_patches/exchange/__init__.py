"""Checkpoints in other programs' formats: reading them, strictly by name, and writing them."""
