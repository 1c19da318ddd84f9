"""The defaults of a run that starts from weights, and who overrules them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from gfldet.config.load import resolve
from gfldet.config.schema import TrainSettings
from gfldet.imports.start import read_start
from gfldet.store import checkpoint as checkpoints
from gfldet.store.transfer import Extent
from gfldet.train import prepare
from gfldet.train.fine_tune import DECAY, EMA_PART, IMAGES, RATES, fine_tuning, rate, whole_share
from gfldet.train.resume import resumed_settings
from gfldet.train.schedule import DEFAULT_LR
from gfldet.train.trainer import Trainer

Prepared = Callable[..., Trainer]


DERIVED = {"lr0": RATES["muon"], "weight_decay": DECAY, "ema_part": EMA_PART, "mosaic": 0.81}


def tuned(extent: Extent | None = "everything", preferred: Any = (), **given: Any) -> tuple[TrainSettings, list[str]]:
    """The settings for IMAGES images and boxes of a median half side of 8 of 320 pixels, and what was told."""
    said: list[str] = []
    settings = resolve("train", {"imgsz": 320, **given}, preferred=dict(preferred))
    assert isinstance(settings, TrainSettings)
    return fine_tuning(settings, extent, IMAGES, 8.0, said.append), said


@pytest.mark.parametrize("extent", ["everything", "all but class rows", "body and boxes", "body"])
def test_weights_change_the_defaults_and_it_is_told(extent: Extent) -> None:
    settings, said = tuned(extent)
    rate = DEFAULT_LR["muon"] if extent == "body" else RATES["muon"]  # a fresh head learns as from nothing
    assert {name: getattr(settings, name) for name in DERIVED} == {**DERIVED, "lr0": rate}
    assert {settings.origins[name] for name in DERIVED} == {"weights"}
    assert len(said) == 1
    assert said[0].startswith(f"fine-tuning: lr0={rate:g} weight_decay=0.02 ema_part=3 mosaic=0.81, since ")


@pytest.mark.parametrize(("extent", "given"), [(None, {}), ("parts", {}), ("everything", {"recipe": "scratch"})])
def test_a_run_without_weights_has_the_defaults_of_always(extent: Extent | None, given: dict[str, Any]) -> None:
    settings, said = tuned(extent, **given)
    assert settings == resolve("train", {"imgsz": 320, **given})
    assert said == []


def test_what_the_user_or_the_model_sets_wins() -> None:
    settings, said = tuned(lr0=0.002, mosaic=1.0)
    assert (settings.lr0, settings.mosaic) == (0.002, 1.0)
    assert "lr0" not in said[0]
    assert "mosaic" not in said[0]
    assert tuned(preferred={"lr0": 0.0007})[0].lr0 == 0.0007
    for optimizer in RATES:  # the rate is that of the optimiser in use, lower than from nothing
        settings, _ = tuned(optimizer=optimizer)
        assert settings.optimizer == optimizer
        assert settings.lr0 == RATES[optimizer] < DEFAULT_LR[optimizer]


def test_the_rate_goes_with_the_number_of_images() -> None:
    assert rate("muon", IMAGES) == RATES["muon"] == 0.0008
    assert rate("muon", 123) == 0.00025  # in two digits, as people write it
    assert rate("muon", 1) == rate("muon", 100) == 0.0002  # some learning there has to be
    assert rate("muon", 123, times=4) == 0.00098
    assert rate("muon", 10**6) == DEFAULT_LR["muon"]  # as from nothing


@pytest.mark.parametrize(
    ("half_side", "frame", "share"),
    [
        (None, (320, 320), 1.0),  # no boxes, nothing to cut
        (0.0, (320, 320), 1.0),
        (8.0, (320, 320), 0.81),  # 16 of 320 px: .05 by the seam, .05 by the border, along both sides
        (8.0, (320, 160), 0.72),
        (40.0, (320, 320), 0.25),
        (80.0, (320, 320), 0.0),  # half of the frame
        (200.0, (320, 320), 0.0),
    ],
)
def test_the_share_of_a_mosaics_objects_that_are_whole(
    half_side: float | None, frame: tuple[int, int], share: float
) -> None:
    assert whole_share(half_side, frame) == pytest.approx(share)


def test_it_is_saved_with_the_run_and_lasts(prepared: Prepared) -> None:
    """args.yaml and the checkpoint hold what was derived, so that a resumed run goes on with it."""
    first = prepared(epochs=1)
    first.run()
    second = prepared(epochs=1, pretrained=first.weights / "best.pt")
    second.run()
    names = [name for name, origin in second.settings.origins.items() if origin == "weights"]
    assert names
    assert set(names) <= set(DERIVED)
    assert second.train.augmentation.mosaic == second.settings.mosaic
    saved = yaml.safe_load((second.folder / "args.yaml").read_text("utf-8"))
    assert {name: saved[name] for name in names} == {name: getattr(second.settings, name) for name in names}
    last = second.weights / "last.pt"
    given = resolve("train", {"resume": last, "epochs": 2})
    assert isinstance(given, TrainSettings)
    settings = resumed_settings(checkpoints.load(last), last, given)
    again = prepare.prepare_training(settings, second.model.description, read_start(last), second.folder, last)
    assert {name: getattr(again.settings, name) for name in names} == {name: saved[name] for name in names}
    assert again.plan.lr0 == rate("muon", 6) < RATES["muon"]
