"""How a run's YAML is read: layers, fields, messages."""
