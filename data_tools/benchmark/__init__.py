"""How fast text becomes datasets and samples, beside rebuilt peers."""
