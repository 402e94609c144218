"""What is looked at before a launch, and what is known of it then."""
