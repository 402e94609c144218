"""Checkpoints evaluated by `tools/evals run`: what is missing, one process each, watching, job arrays."""
