"""Checkpoints evaluated: by the harness with an export or in the engine, losses, results on the shelf."""
