"""Weights that other programs wrote: read without their code, checked, and turned into checkpoints of ours."""
