"""What a validation leaves for people to read: numbers, curves and pictures."""
