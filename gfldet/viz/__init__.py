"""Pictures: boxes on images, mosaics of a batch, curves; no torch."""

from __future__ import annotations
