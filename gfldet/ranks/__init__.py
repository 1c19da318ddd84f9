"""The processes of one run: who this one is, and what they tell each other."""
