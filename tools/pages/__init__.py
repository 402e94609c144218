"""Pages and tables that are drawn from the repository."""
