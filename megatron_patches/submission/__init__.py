"""Jobs brought into SLURM's queue once, whatever is cut in between: intents, the queue, and the fence of a job."""
