"""The GPT family: its parameters, layers, FLOPs, memory, names elsewhere."""
