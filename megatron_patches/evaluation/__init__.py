"""A checkpoint evaluated: which one, what its shelf lacks, its export, and results kept one by one."""
