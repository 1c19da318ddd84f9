"""What Linux tells of other processes."""

from __future__ import annotations

from pathlib import Path


def environment_of(process: int) -> dict[str, str]:
    """The environment that a process was started with; empty where it is gone, or not to be read."""
    try:
        entries = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    pairs = (entry.decode(errors="replace").partition("=") for entry in entries)
    return {name: value for name, _, value in pairs}
