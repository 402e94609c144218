"""Parameters of which each rank holds a stretch, as optimizers see them."""
