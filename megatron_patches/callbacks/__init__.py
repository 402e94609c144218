"""Features of the training loop, each a stateful callback."""
