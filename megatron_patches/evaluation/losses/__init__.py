"""Loss and perplexity as training computes them: of validation groups, of datasets, at any length."""
