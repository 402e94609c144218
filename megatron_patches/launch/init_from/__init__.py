"""What a run begins from where it has no checkpoint of its own: the checkpoint that `init_from` names."""
