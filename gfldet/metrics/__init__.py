"""Detection metrics: COCO AP, curves, the confusion matrix; no torch."""

from __future__ import annotations
