"""Losses: pure functions from logits (`focal`, `distribution`, `iou`) and the detectors' criteria (`detection`)."""
