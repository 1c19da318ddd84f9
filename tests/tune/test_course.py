"""A whole tune, of trainings that are made up: what is run, kept, written, and how it goes on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gfldet import Model, cli
from gfldet.config.load import resolve
from gfldet.errors import ConfigError, DataError, OutputError, WorkError
from gfldet.train.events import Observer
from gfldet.tune import course
from gfldet.tune.course import TuneResult, tune
from gfldet.tune.records import load

DEFAULTS = {"lr0": 0.003, "mosaic": 1.0, "scale": 0.5, "fliplr": 0.5, "flipud": 0.0}
EPOCHS = 3


class MadeUpTrial:
    """Trial n tries mosaic = n / 10; it is hopeless from the second epoch on where its AP is below .3."""

    def __init__(self, space: Any, defaults: Any, before: Any, number: int, seed: int, epochs: int, begun: Any) -> None:
        assert (defaults, epochs) == (DEFAULTS, EPOCHS)
        assert list(space) == ["mosaic", "scale", "fliplr", "flipud"]
        assert [run.trial for run in before] == list(range(number))
        self.changes = {"mosaic": number / 10} if begun is None else begun
        self.hopeless: Callable[[int, float], bool] = lambda epoch, ap: epoch > 0 and ap < 0.3


class Trainings:
    """Trains without training: `ap_of` settings and seed is the AP of the last epoch; `fails` may raise at an event."""

    def __init__(self, ap_of: Callable[[float, int], float]) -> None:
        self.ap_of = ap_of
        self.fails: Callable[[str, str], None] = lambda place, event: None
        self.done: list[tuple[str, Mapping[str, Any]]] = []

    def __call__(self, settings: Mapping[str, Any], observer: Observer) -> float:
        place = settings["name"]
        self.done.append((place, settings))
        print("warning: one image has no boxes", file=sys.stderr)
        self.fails(place, "start")
        facts: Any = SimpleNamespace(settings={**DEFAULTS, **settings}, plan=SimpleNamespace(lr0=0.003))
        observer.begin(facts)
        weights = Path(settings["project"]) / place / "weights"
        weights.mkdir(parents=True, exist_ok=True)
        ap = self.ap_of(settings.get("mosaic", 1.0), settings["seed"])
        for epoch in range(EPOCHS):
            self.fails(place, f"epoch {epoch}")
            metrics = SimpleNamespace(map=ap * (epoch + 1) / EPOCHS)
            observer.epoch(SimpleNamespace(epoch=epoch, metrics=metrics))  # type: ignore[arg-type]
        (weights / "best.pt").write_text(place)
        (weights / "last.pt").touch()
        (weights.parent / "predictions.json").touch()
        (weights.parent / "results.csv").touch()
        return ap

    @property
    def places(self) -> list[str]:
        return [place for place, _ in self.done]


def peak(mosaic: float, seed: int) -> float:
    """The best mosaic is .2; the seed moves the AP by a little."""
    return 0.75 - abs(mosaic - 0.2) + 0.01 * (seed % 2)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trainings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(course, "Trial", MadeUpTrial)
    monkeypatch.setattr(course, "check_installed", lambda: None)
    monkeypatch.setattr("gfldet.writing.os.fsync", lambda file: None)  # a disk takes its time
    return Trainings(peak)


def run(trainings: Trainings, **given: Any) -> TuneResult:
    values = {"model": "gfldet-n", "epochs": EPOCHS, "lr0": 0.003, "trials": 4, "seed": 7, "verbose": False, **given}
    return tune(resolve("tune", {n: v for n, v in values.items() if v is not None}), None, trainings)


WHOLE = ["000-seed7", "001-seed7", "002-seed7", "003-seed7", "000-seed8", "002-seed8", "000-seed9", "002-seed9"]


def test_a_tune_from_beginning_to_end(trainings: Trainings, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(trainings, imgsz=64, hsv_h=0.0, verbose=True)
    assert trainings.places == WHOLE
    assert result.folder == Path("runs/tune")
    assert result.best == {"mosaic": 0.2}
    assert result.gain is not None
    # The default has mosaic 1: .75 - .8 < 0, and .01 more with the seeds 7 and 9; the best trial has .75.
    assert result.gain.default == pytest.approx((-0.04, -0.05, -0.04))
    assert result.gain.best == pytest.approx((0.76, 0.75, 0.76))
    default, second = trainings.done[0][1], trainings.done[2][1]
    assert "mosaic" not in default
    assert second == {**default, "name": "002-seed7", "mosaic": 0.2}
    fixed = {"model": "gfldet-n", "epochs": 3, "lr0": 0.003, "imgsz": 64, "hsv_h": 0.0, "seed": 7}
    own = {"name": "000-seed7", "project": "runs/tune/trials", "exist_ok": True, "time": None, "plots": False}
    assert default == {**fixed, **own, "verbose": False}
    told = capsys.readouterr()
    assert told.err == "warning: one image has no boxes\n"
    assert "trial   2, seed 7: AP 0.7600, done at epoch 3 in 0:00, at most 0:00 left; mosaic=0.2" in told.out
    assert told.out.endswith(f"{(result.folder / 'report.txt').read_text()}\n")


def test_best_yaml_is_what_train_takes(trainings: Trainings) -> None:
    run(trainings, class_weights=[1, 2])
    text = Path("runs/tune/best.yaml").read_text()
    assert "# gain +0.8000" in text
    settings = resolve("train", {"cfg": "runs/tune/best.yaml", "epochs": 50})
    assert (settings.mosaic, settings.lr0, settings.epochs, settings.scale) == (0.2, 0.003, 50, 0.5)
    assert settings.class_weights == (1.0, 2.0)
    assert settings.explicit == {"mosaic", "lr0", "epochs", "class_weights", "seed", "model"}


def test_only_the_weights_of_the_best_run_are_kept(trainings: Trainings) -> None:
    result = run(trainings)
    assert (result.folder / "best.pt").read_text() == "002-seed7"
    left = {path.relative_to(result.folder).as_posix() for path in result.folder.rglob("*") if path.is_file()}
    curves = {f"trials/{place}/results.csv" for place in WHOLE}
    assert left == {"best.pt", "best.yaml", "report.txt", "trials.csv", "tune.json", *curves}


def test_a_hopeless_trial_is_given_up(trainings: Trainings) -> None:
    trainings.ap_of = lambda mosaic, seed: 0.1 if mosaic == 0.2 else 0.5
    result = run(trainings)
    states = {one.trial: (one.state, one.curve) for one in result.runs if one.seed == 7}
    assert states[2] == ("pruned", pytest.approx((0.1 / 3, 0.2 / 3)))
    assert states[3][0] == "done"
    assert not list(result.folder.glob("trials/*/weights"))


@pytest.mark.parametrize(
    ("place", "at"),
    [("002-seed7", "start"), ("002-seed7", "epoch 0"), ("001-seed7", "epoch 2"), ("002-seed8", "epoch 2")],
)
def test_an_interrupted_tune_goes_on_by_the_same_command(trainings: Trainings, place: str, at: str) -> None:
    def interrupt(where: str, event: str) -> None:
        if (where, event) == (place, at):
            raise KeyboardInterrupt

    trainings.fails = interrupt
    with pytest.raises(KeyboardInterrupt, match=r"of 4 trials (is|are) kept; gfldet tune resume=runs/tune goes on"):
        run(trainings)
    begun, known = len(trainings.done), load(Path("runs/tune")).find(int(place[:3]), int(place[-1]))
    assert (known and known.state) == (None if at == "start" else "running")
    trainings.fails = lambda where, event: None
    result = run(trainings)
    assert trainings.places == WHOLE[:begun] + WHOLE[begun - 1 :]
    assert trainings.done[begun][1] == trainings.done[begun - 1][1]
    again = Trainings(peak)
    whole = run(again, name="whole")
    assert [(r.trial, r.seed, r.changes, r.ap) for r in result.runs] == [
        (r.trial, r.seed, r.changes, r.ap) for r in whole.runs
    ]


def test_a_tune_that_is_over_is_not_written_over(trainings: Trainings) -> None:
    first = run(trainings)
    before = (first.folder / "tune.json").read_bytes()
    assert run(trainings).folder == Path("runs/tune2")
    assert (first.folder / "tune.json").read_bytes() == before
    Path("runs/mine").mkdir()
    with pytest.raises(OutputError, match=r"runs/mine exists"):
        run(trainings, name="mine")
    for where in ({"name": "tune"}, {"exist_ok": True}, {"resume": "runs/tune"}):
        with pytest.raises(ConfigError, match=r"runs/tune holds another tune: lr0 is 0\.003 there and 0\.004 here"):
            run(trainings, lr0=0.004, **where)


def test_more_trials_extend_a_tune(trainings: Trainings) -> None:
    trainings.ap_of = lambda mosaic, seed: 0.5 + mosaic / 10 if mosaic < 1 else 0.4
    run(trainings)
    assert trainings.places[-1] == "003-seed9"
    result = run(trainings, resume="runs/tune", epochs=None, lr0=None, seed=None, trials=5)
    assert result.folder == Path("runs/tune")
    assert trainings.places[len(WHOLE) :] == ["004-seed7", "004-seed8", "004-seed9"]
    assert result.best == {"mosaic": 0.4}
    assert run(trainings, resume="runs/tune", trials=None).best == {"mosaic": 0.4}  # five are what it was to have
    assert len(trainings.done) == len(WHOLE) + 3


def test_a_trial_that_fails_is_left_and_the_default_may_not(
    trainings: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(where: str, event: str) -> None:
        if (where, event) == (failing, "epoch 1"):
            raise WorkError("5 steps in a row were not finite")

    trainings.fails, failing = fail, "002-seed7"
    result = run(trainings)
    assert [one.state for one in result.runs if one.trial == 2] == ["failed"]
    assert "warning: trial 2: 5 steps in a row were not finite" in capsys.readouterr().err
    failing = "000-seed7"
    with pytest.raises(WorkError):
        run(trainings, name="other")
    failing = "000-seed8"
    assert run(trainings, name="third").gain is not None  # of the two other seeds


def test_bad_data_leave_nothing(trainings: Trainings) -> None:
    def fail(where: str, event: str) -> None:
        raise DataError("a label is wrong")

    trainings.fails = fail
    with pytest.raises(DataError):
        run(trainings)
    assert not Path("runs").exists()


def test_the_time_ends_the_search_and_leaves_room_for_the_repetitions(
    trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10**6, 100))
    monkeypatch.setattr(course, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    # Each run takes 100 s of 900: the fifth trial (number 4) is begun while 400 s are used, and four runs follow.
    result = run(trainings, time=0.25, trials=20)
    assert [one.trial for one in result.runs] == [0, 1, 2, 3, 4, 0, 2, 0, 2]
    assert "The time was over" in (result.folder / "report.txt").read_text()


def test_a_val_split_without_boxes_has_no_ap(trainings: Trainings) -> None:
    trainings.ap_of = lambda mosaic, seed: float("nan")
    with pytest.raises(DataError, match=r"val split has no boxes"):
        run(trainings)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"val": False}, r"val=false: tune compares its trials by their AP"),
        ({"mosaic": 1, "scale": 0, "fliplr": 0, "flipud": 0}, r"all settings that it varies are given"),
        ({"augment": "none"}, r"leave one of lr0, mosaic, scale, fliplr, flipud open"),
        ({"device": "0,1"}, r"device=0,1: tune computes on one device; give device=cuda:0"),
    ],
)
def test_what_cannot_be_tuned_is_refused(given: dict[str, Any], message: str, trainings: Trainings) -> None:
    with pytest.raises(ConfigError, match=message):
        run(trainings, **given)
    assert not Path("runs").exists()


def test_data_without_a_val_split_are_refused(trainings: Trainings, dataset: Callable[..., Any]) -> None:
    data = dataset().yaml
    data.write_text("train: images/train\nnames: [red, blue]\n")
    with pytest.raises(DataError, match=r"no val split, by which tune compares its trials; name one, or set val_share"):
        run(trainings, data=str(data), val_share=0)


# ------------------------------------------------------------------------------------- the command line, and `Model`


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trials=1"], "trials=1: expected a whole number from 2 up"),
        (["iterations=9"], "iterations: no such setting; did you mean trials?"),
        (["trails=9"], "trails: no such setting; did you mean trials?"),
        (["resume=runs/tune"], "resume: there is no tune in runs/tune"),
        (["model=gone.pt"], "gone.pt"),
    ],
)
def test_mistakes_are_one_message(
    words: list[str], message: str, trainings: Trainings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["tune", *words]) == 2
    told = capsys.readouterr().err
    assert told.startswith("gfldet: ")
    assert message in told
    assert not Path("runs").exists()


def test_an_exported_file_is_not_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_yaml: Path) -> None:
    monkeypatch.chdir(tmp_path)
    model = Model(tiny_yaml)
    model._model = None  # as of an exported file
    with pytest.raises(ConfigError, match=r"an exported file predicts and validates, nothing else"):
        model.tune(data="gone.yaml")
    assert not Path("runs").exists()


def test_without_optuna_the_command_ends_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_yaml: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert cli.main(["tune", f"model={tiny_yaml}", "data=gone.yaml"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("gfldet: tune: the package optuna is not installed, or broken (")
    assert told.endswith("); pip install 'gfldet[tune]'\n")
    assert told.count("\n") == 1
    assert not Path("runs").exists()


def test_a_model_trains_each_trial_from_itself(
    trainings: Trainings, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[Model] = []

    def train(self: Model, observers: Any, **settings: Any) -> Any:
        models.append(self)
        return SimpleNamespace(map=trainings(settings, observers[-1]))

    monkeypatch.setattr(Model, "train", train)
    model = Model(trained)
    result = model.tune(epochs=EPOCHS, lr0=0.003, trials=2, verbose=False)
    assert len({id(one) for one in models}) == len(models) == 6
    assert {one.source for one in models} == {model.source} == {str(trained)}
    assert model not in models
    assert model.save_dir == result.folder == Path("runs/tune")
    assert json.loads((result.folder / "tune.json").read_text())["settings"]["model"] == str(trained)
    assert not any("model" in settings for _, settings in trainings.done)
    # The command line goes on with the model of the tune.
    assert cli.main(["tune", "resume=runs/tune", "trials=3", "verbose=false"]) == 0
    assert {one.source for one in models} == {str(trained)}
