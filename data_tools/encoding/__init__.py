"""Blocks of documents to token ids in worker processes: the fastest library that gives the tokenizer's own ids."""
