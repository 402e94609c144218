"""What formats of transformers share: keys sorted, `config.json` read strictly, tensors rearranged."""
