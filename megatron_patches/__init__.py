"""The training engine: what Trainyard adds to megatron-core and DeepSpeed."""
