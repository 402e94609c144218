"""Command lines: one module for each executable in this folder."""
