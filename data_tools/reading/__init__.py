"""Documents as they stand in files and collections: formats, compression, positions to go on from."""
