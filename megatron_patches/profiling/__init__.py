"""Where the time of steps goes."""
