"""`gfldet tune`: trainings with other settings, compared by their AP on the val split."""

from __future__ import annotations
