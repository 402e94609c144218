"""What goes into a model: declared fields, their lengths, micro-batches, and the stream between layers."""
