"""tools/flat: what it calls growth, and a short run of each of its parts."""

from __future__ import annotations

import sys

import pytest


def test_growth_is_told_by_its_kind() -> None:
    from measure.flat import Held, growth

    rows = [Held(100.0 + (n == 1), 10, 4) for n in range(8)]
    assert growth(rows) == []
    assert growth([*rows, Held(104.0, 10, 4)]) == []  # a heap wanders
    assert growth([*rows, Held(111.5, 12, 4)]) == ["memory from 101.0 to 111.5 MB", "files from 10 to 12"]
    assert growth([*rows, Held(90.0, 9, 5)]) == ["threads from 4 to 5"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_held_is_seen() -> None:
    from measure.flat import held

    before = held()
    with open(__file__, encoding="utf-8"):
        assert held().files == before.files + 1
    assert before.memory > 10
    assert before.threads >= 1


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_each_part_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from measure import flat

    monkeypatch.setattr(flat, "ALLOWED", 1e6)
    monkeypatch.setattr(sys, "argv", ["tools/flat", "--epochs", "2", "--frames", "3", "--video", "4"])
    flat.main()  # threads of the engine may start after the first frame
    out = capsys.readouterr().out
    parts = [line.split(":")[0] for line in out.splitlines() if line.endswith(" steps")]
    assert parts == ["train", "pt", "onnx", "video"]
    assert out.count("\n| 2 |") == 4


def test_a_part_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    from measure.flat import arguments

    with pytest.raises(SystemExit):
        arguments(["all"])
    assert "no such part: all; there are train, pt, onnx, video" in capsys.readouterr().err
