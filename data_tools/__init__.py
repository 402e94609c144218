"""From text to batches: sources, tokenizers, .bin/.idx files, order of samples, manifests. Never imports torch."""
