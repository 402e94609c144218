"""What is known of a parameter: its row in an architecture's table, its slice on a rank, its initial values."""
