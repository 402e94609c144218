"""The GPT family: its section, its problems, its names elsewhere."""
