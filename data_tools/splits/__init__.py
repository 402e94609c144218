"""Which documents are for training, validation and test: shares in file order or by hash, and what to say of them."""
