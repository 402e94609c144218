"""What is asked of a model: tasks of the harness, and local files in the formats that people have."""
