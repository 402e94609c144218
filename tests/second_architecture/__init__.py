"""An encoder-decoder that the product does not know: what a second architecture has to write, and nothing more."""
