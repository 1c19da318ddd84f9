"""Finding objects: detectors, how their detections are selected, and the loops that predict and validate."""
