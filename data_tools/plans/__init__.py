"""Plans of samples: which tokens of a dataset make which sample, computed once and mapped."""
