"""Whether a run's model and its export are the same: tensors, logits, what it is for."""
