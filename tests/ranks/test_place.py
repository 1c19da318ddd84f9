"""Which process this one is, which device is its own, and what is said where these do not fit."""

from __future__ import annotations

import numpy as np
import pytest

from gfldet.errors import ConfigError
from gfldet.model import Model
from gfldet.ranks.place import Place, check_one_process, device_at, devices_of, leads, place_of
from gfldet.ranks.start import alone, joined
from gfldet.ranks.value import Ranks

TORCHRUN = {
    "WORLD_SIZE": "4",
    "RANK": "3",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "host",
    "MASTER_PORT": "29500",
}


@pytest.mark.parametrize("world", ["", "1", "0", "none"])
def test_one_process_needs_no_environment(world: str) -> None:
    assert place_of({"WORLD_SIZE": world} if world else {}) == Place()
    assert leads({"WORLD_SIZE": world, "RANK": "0"})


def test_the_place_that_torchrun_gives() -> None:
    assert place_of(TORCHRUN) == Place(3, 4, 1, 2)
    assert not leads(TORCHRUN)
    assert leads({**TORCHRUN, "RANK": "0"})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"RANK": ""}, "WORLD_SIZE=4 is set, but not RANK; .*or unset WORLD_SIZE"),
        ({"MASTER_PORT": "", "LOCAL_RANK": ""}, "not LOCAL_RANK, MASTER_PORT"),
        ({"RANK": "4"}, "WORLD_SIZE=4, RANK=4, .*do not go together"),
        ({"LOCAL_RANK": "2"}, "do not go together"),
        ({"LOCAL_WORLD_SIZE": "5", "WORLD_SIZE": "4"}, "do not go together"),
        ({"LOCAL_RANK": "one"}, "LOCAL_RANK='one': a whole number is expected"),
        ({"MASTER_PORT": "x"}, "MASTER_PORT='x'"),
    ],
)
def test_an_environment_that_is_not_whole(changes: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        place_of({**TORCHRUN, **changes})


@pytest.mark.parametrize(
    ("device", "gpus", "own"),
    [
        ("auto", 0, "cpu"),
        ("auto", 8, "cuda:1"),
        ("cuda", 2, "cuda:1"),
        ("cpu", 8, "cpu"),
        ("cpu:2", 0, "cpu"),
        ("4,6", 8, "cuda:6"),
    ],
)
def test_each_process_has_its_own_device(device: str, gpus: int, own: str) -> None:
    assert device_at(place_of(TORCHRUN), device, gpus) == own


@pytest.mark.parametrize(
    ("device", "gpus", "told"),
    [
        ("auto", 1, "2 processes on this machine, which has 1 GPU"),
        ("cuda", 0, "which has 0 GPU"),
        ("cuda:0", 8, r"device=cuda:0: 1 device, but WORLD_SIZE=4 with 2 processes on this machine"),
        ("mps", 0, "1 device"),
        ("cpu:3", 0, "3 device"),
        ("0,1,2", 8, "3 device"),
    ],
)
def test_a_device_that_does_not_fit_the_processes(device: str, gpus: int, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        device_at(place_of(TORCHRUN), device, gpus)


def test_several_devices_in_one_process() -> None:
    assert devices_of("cpu:3") == ("cpu", "cpu", "cpu")
    assert devices_of("0,2") == ("cuda:0", "cuda:2")
    assert devices_of("cuda:1") == ("cuda:1",)
    with pytest.raises(ConfigError, match=r"device=0,1: 2 devices for one process; .* torchrun"), joined("0,1"):
        pass


def test_one_process_joins_nobody() -> None:
    with joined("cpu") as ranks:
        assert (ranks.rank, ranks.size, ranks.device, ranks.leads) == (0, 1, "cpu", True)
        assert ranks.share([1, 2, 3]) == [1, 2, 3]
        assert ranks.gathered("a") == ["a"]
        assert ranks.of_first(lambda: 1) == ranks.together(lambda: 1) == 1
        ranks.check_same("what is not asked for", lambda: 1 / 0)  # type: ignore[arg-type, return-value]


def test_commands_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"device=0,1: export computes on one device; give device=cuda:0"):
        check_one_process("export", "0,1")
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"WORLD_SIZE=4: export runs in one process; .*unset WORLD_SIZE"):
        check_one_process("export", "auto")


def test_a_process_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """`Model.predict` of a script under torchrun: on the process's own part of the machine, without the others."""
    assert alone("cpu") == Ranks(device="cpu")
    with pytest.raises(ConfigError, match=r"device=0,1: 2 devices for one process; .* or give one device"):
        Model("gfldet-n.yaml").predict("image.jpg", device="0,1")
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    assert alone("cpu") == Ranks(local_size=2, device="cpu")
    with pytest.raises(ConfigError, match=r"device=cpu:3: 3 devices, but WORLD_SIZE=4"):
        alone("cpu:3")
    (found,) = Model("gfldet-n.yaml").predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, device="cpu")
    assert found.orig_shape == (64, 64)
