"""What GPTs and encoders share: their parameters, layers, FLOPs and memory."""
