"""Models of transformers: exports with their card, and imports."""
