"""Public weights of other programs: which there are, where they lie here, and the one way to get them."""
