"""Globs: the standard library's answers, and an end where links lead back."""

from __future__ import annotations

import glob
from pathlib import Path

import pytest

from gfldet.data import patterns
from gfldet.data.patterns import fixed_part, matching
from gfldet.errors import DataError

FILES = ("a/b/x.jpg", "a/y.jpg", ".h/z.jpg", "a/.i.jpg", "w.jpg", "c[1]/k.jpg", "a/b/c/d.png")
PATTERNS = [
    *("*", "**", "**/*.jpg", "a/*", "a/**/*.jpg", "./*.jpg", "*/*.jpg", ".*/*.jpg", "c[[]1]/*.jpg", "**/b/*", "a/**"),
    *("../*/w.jpg", "**/**/x.jpg", "[z-a]", "[", "a/[!x]*", "none/*", "*/none", "w.jpg/*", "a/*/*"),
]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).touch()
    monkeypatch.chdir(tmp_path / "tree")
    return tmp_path / "tree"


@pytest.mark.parametrize("pattern", PATTERNS)
def test_as_the_standard_library(tree: Path, pattern: str) -> None:
    for written in (pattern, f"{tree}/{pattern}"):
        found = {str(Path(path)) for path in glob.glob(written, recursive=True)}
        ours = [str(path) for path in matching(written)]
        assert set(ours) - {"."} == found
        assert ours == sorted(ours)


def test_folders_that_link_to_themselves_are_walked_through_once(tree: Path) -> None:
    for name in ("here", "too", "a/up"):
        (tree / name).symlink_to(tree)
    (tree / "other").symlink_to(tree / "a")
    assert [str(path) for path in matching("**/*.jpg")] == ["a/b/x.jpg", "a/y.jpg", "c[1]/k.jpg", "w.jpg"]
    assert [str(path) for path in matching("other/*.jpg")] == ["other/y.jpg"]


@pytest.mark.parametrize("pattern", ["a\0*", "x" * 300 + "*", "\ud800*", "*/" + "x" * 300, "*/a\0"])
def test_patterns_that_no_path_fits(tree: Path, pattern: str) -> None:
    assert matching(pattern) == []


def test_the_part_before_the_first_wildcard() -> None:
    assert fixed_part("a/b/*.jpg") == Path("a/b")
    assert fixed_part("/a/**/b") == Path("/a")
    assert fixed_part("*.jpg") == Path()


def test_the_root_of_the_file_system_is_not_walked_through(tmp_path: Path) -> None:
    (tmp_path / "top").symlink_to("/")
    for pattern in ("/**", "/**/*.jpg", f"{tmp_path}/top/**/*.jpg", f"{tmp_path}/*/**"):
        with pytest.raises(DataError, match=r"is the root of the file system; name a folder before \*\*"):
            matching(pattern)
    assert matching(f"{tmp_path}/**") == [tmp_path]


def test_the_folders_of_a_pattern_are_bounded(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "MAX_FOLDERS", 5)
    assert len(matching("**/*.jpg")) == 4
    (tree / "a/b/c/e/f").mkdir(parents=True)
    with pytest.raises(DataError, match="more than 5 folders; name one nearer to the files"):
        matching("**/*.jpg")
