"""stub"""

from __future__ import annotations

from pathlib import Path

from gfldet.health.check import Health


def write_page(health: Health, path: Path) -> None:
    """Stub."""
