"""The command line: how settings may be written, the help, the messages, and the exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import gfldet
from gfldet.cli import main
from gfldet.config.schema import COMMANDS, settings_of
from gfldet.config.show import default_yaml
from gfldet.errors import DataError, WorkError
from gfldet.signals import Interrupted


class FakeModel:
    """Stands in for `gfldet.Model`: keeps the calls, and raises what a test tells it to."""

    is_fresh = False

    def __init__(self, model: str) -> None:
        calls.append(("Model", model))
        self.save_dir: Path | None = Path("runs/somewhere")

    def __getattr__(self, command: str) -> Any:
        def work(**settings: Any) -> list[Any]:
            calls.append((command, settings))
            if failure:
                raise failure[0]
            return []

        return work


calls: list[tuple[str, Any]] = []
failure: list[BaseException] = []


@pytest.fixture(autouse=True)
def fake_model(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("gfldet.model")
    module.Model = FakeModel  # type: ignore[attr-defined]
    module.import_weights = lambda **given: calls.append(("import", given)) or "imported.pt"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gfldet.model", module)
    calls.clear()
    failure.clear()


@pytest.mark.parametrize("words", [[], ["help"], ["-h"], ["--help"]])
def test_overview(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out = capsys.readouterr().out
    for command, settings in COMMANDS.items():
        assert f"  {command:<10}{settings.__doc__}\n" in out


@pytest.mark.parametrize(
    "words", [["train", "-h"], ["train", "epochs=3", "--help"], ["help", "train"], ["train", "help"]]
)
def test_help_of_a_command(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: gfldet train key=value ...")
    assert all(setting.name in out for setting in settings_of(COMMANDS["train"]))
    assert not calls


@pytest.mark.parametrize("word", ["version", "--version", "-V"])
def test_version(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 0
    assert capsys.readouterr().out == f"{gfldet.__version__}\n"


def test_settings_prints_the_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    assert capsys.readouterr().out == default_yaml()


def test_settings_takes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: gfldet settings\n")
    assert main(["settings", "epochs=3"]) == 2
    assert capsys.readouterr().err.startswith("gfldet: epochs=3: gfldet settings takes nothing; ")


@pytest.mark.parametrize(("command", "told"), [("predict source=a.jpg", True), ("val", True), ("train", False)])
def test_random_weights_find_nothing(
    command: str, told: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(FakeModel, "is_fresh", True)
    monkeypatch.setattr(FakeModel, "source", "gfldet-n", raising=False)
    assert main(command.split()) == 0
    assert ("notice: gfldet-n: its weights are random" in capsys.readouterr().err) == told


def test_only_given_settings_reach_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "model=gfldet-s", "epochs=60", "imgsz=320", "val=False", "data=a=b.yaml"]) == 0
    assert calls == [
        ("Model", "gfldet-s"),
        ("train", {"epochs": 60, "imgsz": 320, "val": False, "data": "a=b.yaml"}),
    ]
    assert capsys.readouterr().out == f"Results are in {Path('runs/somewhere')}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["epochs=5", "exist_ok=true", "workers=-1"],
        ["--epochs", "5", "--exist_ok", "true", "--workers", "-1"],
        ["--epochs=5", "--exist-ok", "--workers=-1"],
        ["--exist-ok", "epochs=5", "--workers", "-1"],
        ["--workers", "-1", "epochs=5", "--exist-ok"],
    ],
)
def test_ways_to_write_settings(words: list[str]) -> None:
    assert main(["train", *words]) == 0
    assert calls[1] == ("train", {"epochs": 5, "exist_ok": True, "workers": -1})


def test_predict_saves_pictures_unless_told_not_to() -> None:
    main(["predict", "source=x"])
    main(["predict", "source=x", "save=no"])
    assert [call for call in calls if call[0] == "predict"] == [
        ("predict", {"source": "x", "save": True, "stream": True}),
        ("predict", {"source": "x", "save": False, "stream": True}),
    ]


def test_settings_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("model: gfldet-m\nepochs: 7\nbatch: 4\n")
    assert main(["train", f"cfg={file}", "batch=8"]) == 0
    assert calls == [("Model", "gfldet-m"), ("train", {"epochs": 7, "batch": 8})]


def test_notices_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["val", "imgsz=100"]) == 0
    assert capsys.readouterr().err == "notice: imgsz=100 is not a multiple of 32: 128 is used\n"
    assert calls[1] == ("val", {"imgsz": 128})


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("trian", "gfldet: trian: no such command; did you mean train?"),
        ("detect", "gfldet: detect: no such command"),
    ],
)
def test_unknown_command(word: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([word], ["help", word], [word, "epochs=3"]):
        assert main(words) == 2
        got = capsys.readouterr()
        assert (got.out, got.err.splitlines()[0]) == ("", told)


UNWRITTEN = "settings are written key=value, without blanks"
SOURCE = "an image, a folder, a pattern as in 'images/*.jpg', a .txt list or a video"
WHOLE = "expected a whole number from 1 up"


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        ("train foo", [f"foo: {UNWRITTEN}"]),
        (
            "train epochs = 3",
            [f"epochs: {UNWRITTEN}; did you mean epochs=VALUE?", f"=: {UNWRITTEN}", f"3: {UNWRITTEN}"],
        ),
        ("train my.yaml", [f"my.yaml: {UNWRITTEN}; did you mean data=my.yaml?"]),
        ("val best.pt", [f"best.pt: {UNWRITTEN}; did you mean model=best.pt?"]),
        (
            "predict a.jpg",
            [f"a.jpg: {UNWRITTEN}; did you mean source=a.jpg?", f"source: missing; give {SOURCE}"],
        ),
        ("train -e 3", [f"-e: {UNWRITTEN}", f"3: {UNWRITTEN}"]),
        ("train --lr0", ["--lr0: a value is missing; write lr0=VALUE"]),
        ("train --epochs batch=3", ["--epochs: a value is missing; write epochs=VALUE"]),
        ("train =3", [f"=3: {UNWRITTEN}"]),
        ("train epochs=", [f"epochs=: {WHOLE}"]),
        ("train epochs=3 epochs=4", ["epochs: given twice (3 and 4)"]),
        (
            "train epoch=3 bach=1 batch=x",
            [
                "epoch: no such setting; did you mean epochs?",
                "bach: no such setting; did you mean batch?",
                f"batch=x: {WHOLE}, or auto",
            ],
        ),
        ("train lr0=-1", ["lr0=-1: expected a number above 0, up to 1, or none"]),
        ("val epochs=3", ["epochs: a setting of train and tune, not of val"]),
        ("predict source=", [f"source=: expected {SOURCE}"]),
        (
            "train cfg=none.yaml x=1",
            [
                "cfg=none.yaml: cannot be read (No such file or directory)",
                "x: no such setting",
            ],
        ),
    ],
)
def test_bad_input(words: str, problems: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    got = capsys.readouterr()
    assert got.out == ""
    assert not calls
    command = words.split()[0]
    head, *told, tail = got.err.splitlines()
    assert head == f"gfldet: These settings of {command} cannot be used:"
    assert told == [f"  {problem}" for problem in problems]
    assert tail == f"gfldet {command} --help lists them all."


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (DataError("a.jpg: empty"), 2, "gfldet: a.jpg: empty\n"),
        (WorkError("the loss is not finite"), 1, "gfldet: the work failed: the loss is not finite\n"),
        (KeyboardInterrupt(), 130, "gfldet: interrupted\n"),
        (KeyboardInterrupt("2 of 9 epochs are kept"), 130, "gfldet: interrupted; 2 of 9 epochs are kept\n"),
        (Interrupted(signal.SIGINT), 130, "gfldet: interrupted\n"),
        (Interrupted(signal.SIGTERM), 143, "gfldet: ended by SIGTERM\n"),
        (Interrupted(signal.SIGHUP), 129, "gfldet: ended by SIGHUP\n"),
    ],
)
def test_exit_codes(error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    failure.append(error)
    assert main(["train"]) == code
    assert capsys.readouterr().err == told


def test_a_bug_keeps_its_traceback() -> None:
    failure.append(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        main(["train"])


def test_export_and_import_tell_what_they_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "model=best.pt", "nms=True"]) == 0
    assert calls == [("Model", "best.pt"), ("export", {"nms": True})]
    calls.clear()
    assert main(["import", "weights=yolov8n.pt"]) == 0
    assert calls == [("import", {"weights": "yolov8n.pt"})]
    assert capsys.readouterr().out.splitlines()[-1] == "Written: imported.pt"


@pytest.mark.parametrize(
    ("words", "guess"),
    [(["val", "best.onnx"], "model=best.onnx"), (["import", "yolov8n.pt", "out=x.pt"], "weights=yolov8n.pt")],
)
def test_a_bare_file_is_guessed(words: list[str], guess: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert f"did you mean {guess}?" in capsys.readouterr().err


@pytest.fixture
def fake_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("gfldet.imports.fetch")
    module.fetch = lambda name, **given: calls.append((name, given)) or Path("toy.pt")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gfldet.imports.fetch", module)


@pytest.mark.usefixtures("fake_fetch")
@pytest.mark.parametrize("words", ["get v9-t", "get=v9-t", "--get v9-t", "--get=v9-t"])
def test_ways_to_get_weights(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", *words.split()]) == 0
    assert main(["weights", "verbose=false", *words.split(), "exist_ok=true"]) == 0
    assert calls == [("v9-t", {"again": False, "verbose": True}), ("v9-t", {"again": True, "verbose": False})]
    assert capsys.readouterr().out == "toy.pt\n"  # the path alone, for scripts


def test_weights_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights"]) == 0
    assert "gfldet weights get NAME" in capsys.readouterr().out
    assert main(["weights", "--json"]) == 0
    assert capsys.readouterr().out.startswith('[\n  {\n    "name": "v9-t"')


@pytest.mark.usefixtures("fake_fetch")
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("get", "get: a value is missing; write get NAME"),
        ("get json=true", "get: a value is missing; write get NAME"),
        ("get v9-t v9-s", f"v9-s: {UNWRITTEN}; did you mean get v9-s? gfldet weights alone lists all"),
        ("get v9-t get v9-s", "get: given twice (v9-t and v9-s)"),
        ("v9-t", f"v9-t: {UNWRITTEN}; did you mean get v9-t? gfldet weights alone lists all"),
        ("format=json", "format: a setting of export, not of weights"),
    ],
)
def test_bad_words_of_weights(words: str, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", *words.split()]) == 2
    assert capsys.readouterr().err.splitlines()[1:-1] == [f"  {problem}"]
    assert not calls


def test_the_usage_of_weights(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", "--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: gfldet weights [get NAME] key=value ...\n")


LEAVING = """
import atexit, sys
from gfldet import cli

def run(argv, for_good):
    atexit.register(lambda: print("done", flush=False))
    print("told", end=" ")
    return 7

cli._run = run
sys.exit(cli.main())
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="another system")
@pytest.mark.parametrize(("out", "code"), [("pipe", 7), ("/dev/full", 2)])
def test_a_process_leaves_after_all_that_was_registered_for_its_end(out: str, code: int) -> None:
    with open("/dev/full", "w") as full:
        stdout = subprocess.PIPE if out == "pipe" else full
        ended = subprocess.run([sys.executable, "-c", LEAVING], stdout=stdout, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == code
    assert ended.stdout in (None, "told done\n")
    assert ("No space left" in ended.stderr) == (out == "/dev/full")


def test_a_reader_that_goes_away_is_told_as_by_its_signal() -> None:
    script = LEAVING.replace('print("told", end=" ")\n    return 7', "raise BrokenPipeError")
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (128 + signal.SIGPIPE, "")


def test_a_closed_output_changes_nothing() -> None:
    command = f"exec {sys.executable} -m gfldet version >&-"
    ended = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_an_interruption_with_a_closed_output_is_told() -> None:
    script = LEAVING.replace('print("told", end=" ")\n    return 7', "raise KeyboardInterrupt")
    ended = subprocess.run(["sh", "-c", f"exec {sys.executable} -c '{script}' >&-"], stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (130, "gfldet: interrupted\n")
