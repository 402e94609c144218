"""What came from elsewhere: files read within bounds, names checked, text made safe to print."""
