"""What is known of a run from its configuration alone, and where it keeps what it makes."""
