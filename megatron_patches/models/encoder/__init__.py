"""Encoders: bidirectional transformers that fill in masked tokens."""
