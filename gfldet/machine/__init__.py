"""What this machine offers, and how much of it a run takes: cores and threads, memory, the device, its precision."""
