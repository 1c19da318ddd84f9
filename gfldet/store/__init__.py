"""What runs leave on disk: their folders, and checkpoints."""
