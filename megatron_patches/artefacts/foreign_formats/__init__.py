"""Checkpoints that other programs wrote, looked at without running any of them: formats, sizes, what a pickle holds."""
