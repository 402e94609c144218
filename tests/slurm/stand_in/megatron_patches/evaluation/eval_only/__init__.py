"""Stands in for the engine in the tests of `slurm/launch`: no torch, and it does what the environment says."""
