"""Run folders: numbered, never another's unasked, and no half-written file."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
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
    with pytest.raises(OutputError, match=r"no permission to write in .*; choose another project="):
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
