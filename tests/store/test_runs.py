"""Run folders: numbered, never another's unasked, and no half-written file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from gfldet.errors import OutputError
from gfldet.store import runs


def test_folders_are_numbered_and_nothing_is_made(tmp_path: Path) -> None:
    project = tmp_path / "a" / "b"
    assert runs.free_folder(str(project), "", "train", False) == project / "train"
    assert list(tmp_path.iterdir()) == []
    for expected in ("train", "train2", "train3"):
        folder = runs.free_folder(str(project), "", "train", False)
        assert folder == project / expected
        runs.make(folder)
    assert runs.free_folder(str(project), "", "val", False) == project / "val"
    assert runs.free_folder(str(project), "", "train", True) == project / "train"


def test_a_folder_is_claimed_by_one_run_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: runs.claim_folder(str(tmp_path / "new"), "", "train", False), range(24)))
    assert sorted(folder.name for folder in claimed) == sorted(["train", *(f"train{n}" for n in range(2, 25))])
    assert all(folder.is_dir() for folder in claimed)


def test_another_process_may_be_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both were told that the folder is free; the second takes the next, or is refused where it gave the name."""
    free = runs.free_folder

    def slow(*where: Any) -> Path:
        folder = free(*where)
        monkeypatch.setattr(runs, "free_folder", free)
        folder.mkdir(parents=True)
        return folder

    monkeypatch.setattr(runs, "free_folder", slow)
    assert runs.claim_folder(str(tmp_path), "", "train", False) == tmp_path / "train2"
    monkeypatch.setattr(runs, "free_folder", slow)
    with pytest.raises(OutputError, match=r"mine exists; choose another name="):
        runs.claim_folder(str(tmp_path), "mine", "train", False)
    assert runs.claim_folder(str(tmp_path), "mine", "train", True) == tmp_path / "mine"


def test_a_named_folder_that_exists_is_refused(tmp_path: Path) -> None:
    assert runs.free_folder(str(tmp_path), "mine", "train", False) == tmp_path / "mine"
    (tmp_path / "mine").mkdir()
    with pytest.raises(OutputError, match=r"mine exists; choose another name=, or exist_ok=true"):
        runs.free_folder(str(tmp_path), "mine", "train", False)
    assert runs.free_folder(str(tmp_path), "mine", "train", True) == tmp_path / "mine"


def test_a_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for project, name in ((tmp_path / "file", ""), (tmp_path / "file" / "deeper", "x"), (tmp_path, "file")):
        with pytest.raises(OutputError, match="file is a file, not a folder; choose another project= or name="):
            runs.free_folder(str(project), name, "train", True)


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(os, "access", lambda path, mode: asked.append(path))
    with pytest.raises(OutputError, match=r"no permission to write in .*; choose another project= or name="):
        runs.free_folder(str(tmp_path / "new" / "runs"), "", "train", False)
    assert asked == [tmp_path]  # the folder that is there, of those above


def test_make_tells_why_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot be made \(Not a directory\); choose another project="):
        runs.make(tmp_path / "file" / "runs")


def test_a_file_in_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        runs.write_json(tmp_path / "gone" / "metrics.json", {})


def test_files_are_as_open_as_the_user_has_them(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        runs.write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o644


# --------------------------------------------------------------------------------------------- claimed before the work


def test_a_claimed_folder_goes_if_nothing_came_into_it(tmp_path: Path) -> None:
    where = (str(tmp_path / "a" / "b"), "", "train", False)
    with suppress(KeyboardInterrupt), runs.claimed(*where) as folder:
        assert folder == tmp_path / "a" / "b" / "train"
        assert folder.is_dir()
        with runs.claimed(*where) as other:  # meanwhile, as of another process
            assert other.name == "train2"
        raise KeyboardInterrupt
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["train2"]
    with pytest.raises(OutputError), runs.claimed(str(tmp_path / "c" / "d"), "x/y", "val", False):
        raise OutputError("refused")
    assert not (tmp_path / "c").exists()


def test_a_claimed_folder_with_something_in_it_stays(tmp_path: Path) -> None:
    with suppress(OutputError), runs.claimed(str(tmp_path), "", "val", False) as folder:
        (folder / "metrics.json").write_text("{}")
        raise OutputError("the disk is full")
    assert (tmp_path / "val" / "metrics.json").is_file()
    (tmp_path / "mine").mkdir()  # the user's own, empty
    with pytest.raises(OutputError), runs.claimed(str(tmp_path), "mine", "val", True):
        raise OutputError("refused")
    assert (tmp_path / "mine").is_dir()


def test_a_link_that_leads_nowhere_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "train").symlink_to(tmp_path / "gone")
    assert runs.claim_folder(str(tmp_path), "", "train", False) == tmp_path / "train2"
    with pytest.raises(OutputError, match=r"train exists; choose another name="):
        runs.claim_folder(str(tmp_path), "train", "train", False)
    with pytest.raises(OutputError, match=r"train: cannot be made \(File exists\); choose another project= or name="):
        runs.claim_folder(str(tmp_path), "train", "train", True)


def test_one_process_trains_in_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with runs.trained_here(tmp_path):
        told = rf"{tmp_path}: process {os.getpid()} on .* trains this run now; let it end"
        with pytest.raises(OutputError, match=told), runs.trained_here(tmp_path):
            pytest.fail("there are two")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".lock").write_text("process 1 on here")  # left by one that was killed
    with runs.trained_here(tmp_path):
        pass
    with pytest.raises(KeyboardInterrupt), runs.trained_here(tmp_path):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


HOLDER = """
import os, sys, time
from pathlib import Path
from gfldet.store import runs
with runs.trained_here(Path(sys.argv[1])):
    if not os.fork():  # as the processes that make batches
        print(os.getpid(), flush=True)
    time.sleep(60)
"""


def test_a_killed_process_is_in_nobody_s_way(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        with pytest.raises(OutputError, match=f"process {process.pid} on "), runs.trained_here(tmp_path):
            pytest.fail("there are two")
        process.kill()
        process.wait()
        with runs.trained_here(tmp_path):
            pass
        os.kill(child, signal.SIGKILL)
    assert list(tmp_path.iterdir()) == []


def test_one_process_makes_a_file(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    target = tmp_path / "best.onnx"
    with runs.written_here(target):
        told = rf"{target}: process \d+ on .* writes it now; let it end, or choose another out="
        with pytest.raises(OutputError, match=told), runs.written_here(target):
            pytest.fail("there are two")
        with runs.written_here(tmp_path / "other.onnx"):
            pass
    assert list(tmp_path.iterdir()) == []
