"""Command lines: a module or a package for each executable in tools/."""
