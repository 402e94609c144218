"""Encoders in transformers: EuroBERT."""
