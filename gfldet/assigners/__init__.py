"""Assigners: which anchor points are positive for which truth.  No gradients, no state between calls."""

from __future__ import annotations

from gfldet.assigners.assignment import Assigner, Assignment, Predictions, Truths
from gfldet.assigners.static import ATSSAssigner, FCOSAssigner
from gfldet.assigners.task_aligned import TaskAlignedAssigner

__all__ = [
    "ATSSAssigner",
    "Assigner",
    "Assignment",
    "FCOSAssigner",
    "Predictions",
    "TaskAlignedAssigner",
    "Truths",
]
