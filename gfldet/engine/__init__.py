"""The training loop, validation and prediction."""

from __future__ import annotations
