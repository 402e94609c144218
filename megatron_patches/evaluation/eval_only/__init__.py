"""A run's own validation alone, on the layout of a launch: `slurm/launch RUN.yaml --eval-only`."""
