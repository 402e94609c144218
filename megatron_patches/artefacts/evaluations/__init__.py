"""Evaluations of a run's checkpoints: results of tasks, and the shelf that keeps them."""
