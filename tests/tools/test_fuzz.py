"""tools/fuzz: it tells what goes wrong in a reader, keeps the files, does it again; the damage follows from a seed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

WORKER = """
import sys
from pathlib import Path
family, folder, seed, first, last, seconds, memory = sys.argv[1:]
for case in range(int(first), int(last)):
    print(case, flush=True)
    Path(folder).mkdir(exist_ok=True)
    (Path(folder) / "a.txt").write_text(str(case))
    if case == 2:
        sys.exit("Timeout (0:00:20)!")
    if case == 4:
        sys.exit(-11)
"""


def test_a_worker_that_hangs_or_dies_is_followed_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import fuzzing.__main__ as tool

    (tmp_path / "worker.py").write_text(WORKER, encoding="utf-8")
    monkeypatch.setattr(tool, "WORKER", (sys.executable, str(tmp_path / "worker.py")))
    words = ["tools/fuzz", "--family", "coco", "--cases", "8", "--seed", "3", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", words)
    assert tool.main() == 1
    told = capsys.readouterr().out
    assert "coco 2: hang: Timeout" in told
    assert "coco 4: crash" in told
    assert "8 cases" in told
    assert "1 hang, 1 crash" in told
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["coco-3-2", "coco-3-4"]
    assert (tmp_path / "out" / "coco-3-2" / "a.txt").read_text() == "2"
    report = (tmp_path / "out" / "coco-3-2" / "report.txt").read_text()
    assert report.startswith("hang\ntools/fuzz --family coco --seed 3 --case 2\n")


@pytest.fixture
def judged(tmp_path: Path) -> Any:
    """What a worker says of a case of `read`, on a good folder with one file."""
    from fuzzing import worker
    from fuzzing.families import Family

    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "a.txt").write_text("some words\n" * 5)

    def judge(read: Any, most: float = 1e9) -> Any:
        family = Family("planted", lambda folder: None, read, ("*.txt",))
        return worker.judge(family, tmp_path / "good", tmp_path / "case", worker.chance_of("planted", 0, 1), most)

    return judge


def test_what_a_worker_says_of_a_case(judged: Any) -> None:
    from fuzzing.families import attempt

    from gfldet.errors import DataError

    def raising(error: Exception) -> Any:
        def read(*_: Any) -> Any:
            raise error

        return read

    assert judged(lambda folder, chance: None) is None
    assert judged(raising(KeyError("x")))["what"] == "traceback"
    assert "KeyError: 'x'" in judged(raising(KeyError("x")))["told"]
    assert judged(raising(MemoryError()))["what"] == "memory"
    assert judged(lambda folder, chance: None, most=1)["what"] == "memory"
    refusing = raising(DataError("a.txt: is none"))
    assert judged(lambda folder, chance: attempt("a.txt", refusing)) is None
    told = judged(lambda folder, chance: attempt("b.txt", refusing))["told"]
    assert "the message names none of ('b.txt',)" in told


def test_equal_seeds_give_equal_damage(tmp_path: Path) -> None:
    from fuzzing.families import BY_NAME, run_case
    from fuzzing.worker import chance_of

    (tmp_path / "good").mkdir()
    BY_NAME["coco"].make(tmp_path / "good")
    found = []

    def read(folder: Path, chance: Random) -> None:
        found.append([path.read_bytes() for path in sorted(folder.glob("*.*")) if path.is_file()])

    family = replace(BY_NAME["coco"], read=read)
    for case in (0, 1, 2, 3, 0, 1, 2, 3):
        run_case(family, tmp_path / "good", tmp_path / "case", chance_of("coco", 5, case))
    assert found[:4] == found[4:]
    assert len({json.dumps([part.hex() for part in one]) for one in found}) == 4


@pytest.mark.long
def test_a_few_cases_of_a_family(run_tool: Callable[..., str], tmp_path: Path) -> None:
    """In processes of their own: a case counts what its parent holds as its own memory."""
    run = partial(run_tool, "-m", "fuzzing", "--out", str(tmp_path))
    assert run("--family", "settings", "voc", "--cases", "20").count("20 cases") == 2
    assert "case 7 ends as it should" in run("--family", "voc", "--case", "7")
    assert (tmp_path / "case-voc" / "data.yaml").exists()


def test_bad_words(capsys: pytest.CaptureFixture[str]) -> None:
    import fuzzing.__main__ as tool

    with pytest.raises(SystemExit, match="2"):
        tool.arguments(["--case", "3"])
    assert "--case: belongs to one family" in capsys.readouterr().err
