"""Evaluations as people look at them: tables, curves over steps, heat maps."""
