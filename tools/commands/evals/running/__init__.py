"""Evaluations carried out: what is missing, on this machine or as a job array, once or as checkpoints come."""
