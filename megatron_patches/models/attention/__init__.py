"""Attention as a function: which keys a query sees, and what computes it."""
