"""Metrics of detections: COCO average precision, thresholds, curves and the confusion matrix; numpy only."""

from __future__ import annotations

from gfldet.metrics.coco import ClassMetrics, DetectionMetrics, evaluate, format_table, ground_truth

__all__ = ["ClassMetrics", "DetectionMetrics", "evaluate", "format_table", "ground_truth"]
