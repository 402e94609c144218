"""The tokenizer's files that travel with every checkpoint, and the tokenizer that a checkpoint was trained with."""
