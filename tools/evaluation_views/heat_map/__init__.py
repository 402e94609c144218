"""Heat maps of evaluations: parts of tasks by checkpoints, relative to a base model or to chance."""
