"""Samples straight from text: documents read, shuffled and cut beside training, from any place on."""
