"""The GPT family in transformers: GPT-2, BLOOM, Llama, GPT-NeoX."""
