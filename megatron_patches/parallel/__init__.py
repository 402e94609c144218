"""Layout of ranks, process groups and the sharded layers that run on them."""
