"""Suffixes of what is not finished, one for each kind, so that whoever cleans up one kind leaves the others alone."""

PULLING = ".pulling"
