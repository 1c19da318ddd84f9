"""The defaults of a run that starts from weights, and who overrules them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml

from gfldet.config.load import resolve
from gfldet.config.schema import TrainSettings
from gfldet.imports.start import read_start
from gfldet.store import checkpoint as checkpoints
from gfldet.store.transfer import Extent
from gfldet.train import prepare
from gfldet.train.fine_tune import RATES, WHOLE, fine_tuning
from gfldet.train.resume import resumed_settings
from gfldet.train.schedule import DEFAULT_LR
from gfldet.train.trainer import Trainer

Prepared = Callable[..., Trainer]


def tuned(extent: Extent | None = "everything", preferred: Any = (), **given: Any) -> tuple[TrainSettings, list[str]]:
    said: list[str] = []
    settings = resolve("train", given, preferred=dict(preferred))
    assert isinstance(settings, TrainSettings)
    return fine_tuning(settings, extent, said.append), said


@pytest.mark.parametrize("extent", ["everything", "all but class rows", "body and boxes", "body"])
def test_weights_change_the_defaults_and_it_is_told(extent: Extent) -> None:
    settings, said = tuned(extent)
    assert {name: getattr(settings, name) for name in WHOLE} == dict(WHOLE)
    assert {settings.origins[name] for name in WHOLE} == {"weights"}
    assert len(said) == 1
    assert said[0].startswith("fine-tuning: ")
    assert all(f"{name}=" in said[0] for name in WHOLE)


@pytest.mark.parametrize(("extent", "given"), [(None, {}), ("parts", {}), ("everything", {"recipe": "scratch"})])
def test_a_run_without_weights_has_the_defaults_of_always(extent: Extent | None, given: dict[str, Any]) -> None:
    settings, said = tuned(extent, **given)
    assert settings == resolve("train", given)
    assert said == []


def test_what_the_user_or_the_model_sets_wins() -> None:
    settings, said = tuned(lr0=0.002, ema_part=5)
    assert (settings.optimizer, settings.lr0, settings.ema_part) == ("adamw", 0.002, 5)
    assert "lr0" not in said[0]
    assert tuned(preferred={"lr0": 0.0007})[0].lr0 == 0.0007
    for optimizer in RATES:  # the rate is that of the optimiser in use, lower than from nothing
        settings, _ = tuned(optimizer=optimizer)
        assert settings.optimizer == optimizer
        assert settings.lr0 == RATES[optimizer] < DEFAULT_LR[optimizer]


def test_it_is_saved_with_the_run_and_lasts(prepared: Prepared) -> None:
    """args.yaml and the checkpoint hold what was derived, so that a resumed run goes on with it."""
    first = prepared(epochs=1)
    first.run()
    second = prepared(epochs=1, pretrained=first.weights / "best.pt")
    second.run()
    assert isinstance(second.optimizer, torch.optim.AdamW)
    saved = yaml.safe_load((second.folder / "args.yaml").read_text("utf-8"))
    assert {name: saved[name] for name in WHOLE} == dict(WHOLE)
    last = second.weights / "last.pt"
    given = resolve("train", {"resume": last, "epochs": 2})
    assert isinstance(given, TrainSettings)
    settings = resumed_settings(checkpoints.load(last), last, given)
    again = prepare.prepare_training(settings, second.model.description, read_start(last), last)
    assert {name: getattr(again.settings, name) for name in WHOLE} == dict(WHOLE)
    assert again.plan.lr0 == WHOLE["lr0"]
