"""Documents and tokens: sources of text, tokenizers, encoding."""
