"""The data of a run, checked and opened: from its section to sources of samples."""
