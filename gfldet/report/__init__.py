"""The files that a validation writes for people: numbers, curves and pictures."""
