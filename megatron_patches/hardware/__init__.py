"""What machines there are, and what they can do at most."""
