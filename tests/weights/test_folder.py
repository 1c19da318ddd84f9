"""Where weights lie on each platform, and finding them by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from gfldet.errors import CheckpointError, ConfigError
from gfldet.weights import folder
from gfldet.weights.folder import find_weights


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in (folder.HOME, "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    return tmp_path


def test_the_users_own_folder_goes_first(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv(folder.HOME, "~/mine")
    assert folder.folder() == home / "mine"
    monkeypatch.chdir(home)
    monkeypatch.setenv(folder.HOME, "here")
    assert folder.folder() == home / "here"


def test_linux(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    assert folder.folder() == home / ".cache" / "gfldet"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    assert folder.folder() == home / "cache" / "gfldet"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # which the specification says to ignore
    assert folder.folder() == home / ".cache" / "gfldet"


def test_macos_and_windows(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    assert folder.folder() == home / "Library" / "Caches" / "gfldet"
    monkeypatch.setattr("sys.platform", "win32")
    assert folder.folder() == home / "AppData" / "Local" / "gfldet" / "Cache"
    monkeypatch.setenv("LOCALAPPDATA", str(home / "local"))
    assert folder.folder() == home / "local" / "gfldet" / "Cache"


def test_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ConfigError, match="you have no home folder to keep weights in; set GFLDET_HOME to a folder"):
        folder.folder()


def test_a_name_that_is_none(home: Path) -> None:
    assert find_weights("runs/train/weights/best.pt") is None
    assert find_weights("v9-t.pt") is None


def test_weights_that_are_here(home: Path) -> None:
    file = home / ".cache" / "gfldet" / "yolox_nano.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    assert find_weights("yolox_nano") == file


def test_weights_that_are_not_here(home: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        find_weights("v9-t")
    assert str(caught.value) == (
        f"v9-t: these public weights of YOLOv9 (MIT) are not in {home / '.cache' / 'gfldet'}; "
        "`gfldet weights get v9-t` downloads them once"
    )
    assert list(home.iterdir()) == []
