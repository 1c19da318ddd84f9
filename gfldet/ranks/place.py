"""Which process of a run this one is, as torchrun's environment tells, and which device is its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from gfldet.errors import ConfigError, counted, shown

HOW_TO_START = (
    "the commands gfldet train, val and predict start a process for each; start a script of your own by torchrun, "
    "or give one device"
)
LAUNCHED = "TORCHELASTIC_RUN_ID"  # in the environment of processes that torch's launcher started
BY_GFLDET = "gfldet-"  # what it begins with where that works for `gfldet.launch`
NEEDED = ("RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True, slots=True)
class Place:
    """The number of this process and how many there are, in the run and on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1


def place_of(environment: Mapping[str, str] = os.environ) -> Place:
    """The place that torchrun, or a launcher like it, gave to this process; ConfigError where it tells only a part."""
    world = environment.get("WORLD_SIZE", "")
    if not world.isdecimal() or int(world) < 2:
        return Place()
    missing = [name for name in NEEDED if not environment.get(name)]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE={world} is set, but not {', '.join(missing)}; start the processes by torchrun, which sets all "
            "of them, or unset WORLD_SIZE to run in one process"
        )
    numbers = {name: environment[name] for name in (*NEEDED[:3], "MASTER_PORT")}
    wrong = [f"{name}={shown(value)}" for name, value in numbers.items() if not value.isdecimal()]
    if wrong:
        raise ConfigError(f"{', '.join(wrong)}: a whole number is expected; start the processes by torchrun")
    place = Place(int(numbers["RANK"]), int(world), int(numbers["LOCAL_RANK"]), int(numbers["LOCAL_WORLD_SIZE"]))
    if place.rank >= place.size or place.local_rank >= place.local_size or place.local_size > place.size:
        told = ", ".join(f"{name}={numbers[name]}" for name in NEEDED[:3])
        raise ConfigError(f"WORLD_SIZE={world}, {told}: these do not go together; start the processes by torchrun")
    return place


def leads(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the one of its run that speaks."""
    return _is_first("RANK", environment)


def launched_by_gfldet(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a command of gfldet started this process, and so tells of signals."""
    return environment.get(LAUNCHED, "").startswith(BY_GFLDET)


def first_here(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is the first of its run on this machine."""
    return _is_first("LOCAL_RANK", environment)


def _is_first(number: str, environment: Mapping[str, str]) -> bool:
    return environment.get("WORLD_SIZE", "") in ("", "1") or environment.get(number, "0") == "0"


def devices_of(device: str) -> tuple[str, ...]:
    """The setting `device` -> a device for each process on a machine: `0,1` are two GPUs, `cpu:2` two processes."""
    kind, _, number = device.partition(":")
    if kind == "cpu" and number:
        return (kind,) * int(number)
    return tuple(f"cuda:{one}" for one in device.split(",")) if "," in device else (device,)


def device_at(place: Place, device: str, gpus: int) -> str:
    """The device of the process at `place`; ConfigError where the setting `device` does not fit the processes.

    `gpus` is how many this machine has.  A `device` that names none (`auto`, `cuda`) gives each process its own.
    """
    named = devices_of(device)
    if place.size == 1:
        if len(named) > 1:
            raise ConfigError(f"device={device}: {len(named)} devices for one process; {HOW_TO_START}")
        return device
    if device in ("auto", "cuda") and (gpus or device == "cuda"):
        named = tuple(f"cuda:{number}" for number in range(gpus))
        if gpus < place.local_size:
            raise ConfigError(
                f"device={device}: {place.local_size} processes on this machine, which has {counted(gpus, 'GPU')}; "
                "start one for each GPU (--nproc_per_node), or set device=cpu"
            )
        return named[place.local_rank]
    if device in ("auto", "cpu"):
        return "cpu"
    if len(named) != place.local_size:
        raise ConfigError(
            f"device={device}: {counted(len(named), 'device')}, but WORLD_SIZE={place.size} with {place.local_size} "
            "processes on this machine; name one device for each process, or leave device out"
        )
    return named[place.local_rank]


def check_one_process(command: str, device: str) -> None:
    """ConfigError where several processes or devices are meant for a command that runs in one."""
    size, named = place_of().size, devices_of(device)
    if size > 1:
        raise ConfigError(
            f"WORLD_SIZE={size}: {command} runs in one process; start it without torchrun (and unset WORLD_SIZE). "
            "train, val and predict run in several"
        )
    if len(named) > 1:
        raise ConfigError(f"device={device}: {command} computes on one device; give device={named[0]}")
