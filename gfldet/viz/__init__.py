"""Pictures for people: boxes on images, mosaics of a batch, curves of a run.  Knows no model and no settings."""

from __future__ import annotations
