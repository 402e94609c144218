"""Text from a run's checkpoint."""
