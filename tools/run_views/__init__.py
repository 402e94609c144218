"""What there is to say of each run, wherever it is said."""
