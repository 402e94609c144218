"""What an architecture says of itself, and how its layers are listed."""
