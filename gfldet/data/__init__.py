"""Files on disk to images with boxes, and on to batches."""

from __future__ import annotations
