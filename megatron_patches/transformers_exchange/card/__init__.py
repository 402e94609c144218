"""Whether a run's model and its export are the same: tensors, logits, greedy tokens."""
