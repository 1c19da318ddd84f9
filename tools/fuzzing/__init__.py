"""What tools/fuzz and the property tests are made of: small good files, what damages them, and their readers."""
