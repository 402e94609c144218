"""The engine: its interface, and DeepSpeed behind it."""
