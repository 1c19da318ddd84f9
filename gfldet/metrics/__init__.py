"""Metrics of detections: COCO average precision, thresholds, curves and the confusion matrix; numpy only."""
