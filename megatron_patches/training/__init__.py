"""The training loop, and what one rank does with it."""
