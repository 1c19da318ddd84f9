"""Assigners: which anchor points answer for which truth.  No gradients, no state between calls."""

from __future__ import annotations

from gfldet.assigners.task_aligned import Assignment, Predictions, TaskAlignedAssigner, Truths

__all__ = ["Assignment", "Predictions", "TaskAlignedAssigner", "Truths"]
