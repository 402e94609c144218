"""Text sources of a run: which files they are, what is held out of them, how their documents become ids."""
