"""The training run: its parts, its loop, and who watches it."""
