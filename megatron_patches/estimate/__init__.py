"""What a run will take, from its configuration alone: memory, messages, time, money."""
