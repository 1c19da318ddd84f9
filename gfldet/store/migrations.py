"""Payloads of older checkpoints -> payloads of today: a step from each version to the next, applied in turn.

A change of what a checkpoint holds is a new VERSION in `checkpoint`, a step here, and a file of the version before in
tests/store/files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Payload = dict[str, Any]


def migrated(payload: Payload, version: int, steps: Mapping[int, Callable[[Payload], Payload]]) -> Payload:
    """The payload of some version as one of `version`, which is at least its own.

    Raises KeyError or TypeError for a payload that lacks what its version has.
    """
    for number in range(payload["version"], version):
        payload = {**steps[number](payload), "version": number + 1}
    return payload


def _to_2(payload: Payload) -> Payload:
    """The model's `choices` are called `preferred`; progress tells which share of the run is done."""
    model = {"preferred" if key == "choices" else key: value for key, value in payload["model"].items()}
    training = payload["training"]
    if training is not None:
        progress, epochs = training["progress"], payload["settings"].get("epochs")
        share = progress["epoch"] / epochs if epochs else 0.0
        training = {**training, "progress": {**progress, "share": share}}
    return {**payload, "model": model, "training": training}


STEPS: Mapping[int, Callable[[Payload], Payload]] = {1: _to_2}  # version -> what makes the next one of it
