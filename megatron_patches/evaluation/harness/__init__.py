"""Tasks asked by lm-eval, of an export or in the engine: items, metrics and parts out of what a model answers."""
