"""The batch that fits: found along a line, by `batch=auto`, and after a GPU or the machine had no memory left."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import yaml

from gfldet import cli
from gfldet.config.load import resolve
from gfldet.errors import ConfigError, WorkError
from gfldet.nn.tasks import DetectionModel
from gfldet.train import memory
from gfldet.train.memory import is_full, largest, train_in_memory, trial_step, with_batch
from gfldet.train.run import run_training
from gfldet.train.trainer import Trainer

Prepared = Callable[..., Trainer]
GPU = torch.device("cuda", 0)  # a name alone: there is none here


def full(*_: Any) -> Any:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines")


# ------------------------------------------------------------------------------------------ the search


@pytest.mark.parametrize("fixed", [0, 300])
@pytest.mark.parametrize("each", [1, 7, 90, 1000])
@pytest.mark.parametrize("most", [1, 3, 16, 1000])
def test_the_largest_batch_is_found_from_a_few_small_ones(fixed: int, each: int, most: int) -> None:
    room, asked = 2000, []

    def measure(batch: int) -> int:
        asked.append(batch)
        taken = fixed + each * batch
        return full() if taken > 2 * room else taken

    expected = min(most, (room - fixed) // each)
    assert largest(measure, room, most) == expected
    assert max(asked) <= max(1, 2 * expected)
    assert len(asked) <= 12


def test_no_batch_fits_where_a_single_image_does_not() -> None:
    assert largest(full, 1000, 16) == 0
    assert largest(lambda batch: 1001, 1000, 16) == 0


def test_costs_that_jump_do_not_lead_beyond_what_was_seen_to_fail() -> None:
    costs = {1: 10, 2: 20, 4: 260}
    assert largest(costs.__getitem__, 1000, 64) == 4 + 6  # from 2 to 4: 120 each
    assert largest(lambda batch: costs.get(batch, 10**9), 1500, 64) == 7
    assert largest(lambda batch: 10 if batch < 8 else full(), 1000, 64) == 7


# ------------------------------------------------------------------------------------------ batch=auto


@pytest.mark.parametrize("given", ["auto", "AUTO", -1, "-1"])
def test_auto_is_read_as_it_is_written_elsewhere(given: Any) -> None:
    assert resolve("train", {"batch": given}).batch == -1


@pytest.mark.parametrize("given", [0, -2, "all", 1.5, True, None])
def test_other_batches_are_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"batch=.*: expected a whole number from 1 up, or auto"):
        resolve("train", {"batch": given})


@pytest.mark.parametrize("command", ["val", "export"])
def test_auto_is_for_training(command: str) -> None:
    settings = resolve(command, {"batch": "auto"})
    assert settings.batch == 16  # type: ignore[attr-defined]
    assert settings.notices == ("batch=auto: for gfldet train; 16 is used",)


def test_auto_on_a_cpu_is_the_usual_batch(prepared: Prepared, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = prepared(batch="auto", verbose=True)
    assert (trainer.settings.batch, trainer.train.batch) == (16, 16)
    assert "batch=auto: 16 images, as beside a CPU more would not be faster" in capsys.readouterr().out
    assert yaml.safe_load((trainer.folder / "args.yaml").read_text())["batch"] == 16


@pytest.mark.parametrize(
    ("fits", "images", "expected"),
    [(1000, 118_000, 64), (40, 118_000, 40), (1000, 300, 25), (1000, 20, 16), (3, 20, 3)],
)
def test_auto_on_a_gpu_is_what_fits_and_leaves_enough_steps(
    tiny: Any, monkeypatch: pytest.MonkeyPatch, fits: int, images: int, expected: int
) -> None:
    monkeypatch.setattr(memory, "_largest_on_gpu", lambda model, settings, device, held, most: min(fits, most))
    told: list[str] = []
    settings = with_batch(resolve("train", {"batch": "auto"}), DetectionModel(tiny), images, GPU, told.append)
    assert settings.batch == expected
    assert told[0].startswith(f"batch=auto: {expected} images, the most that fit, up to ")
    monkeypatch.setattr(memory, "_largest_on_gpu", lambda *_: 0)
    with pytest.raises(
        WorkError, match="batch=auto: not even one image of 640 x 640 px fits on cuda:0; give a smaller"
    ):
        with_batch(resolve("train", {"batch": "auto"}), DetectionModel(tiny), images, GPU, told.append)


def test_auto_is_for_one_process() -> None:
    from gfldet.ranks.value import Ranks
    from gfldet.train.several import check_share

    with pytest.raises(ConfigError, match="batch=auto: for one process; give a number for 2 of them"):
        check_share(resolve("train", {"batch": "auto"}), Ranks(0, 2))
    check_share(resolve("train", {"batch": "auto"}), Ranks())


def test_a_gpu_is_asked_for_its_free_memory(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers of torch.cuda, made up: 10 MB free, of which the run holds 1 MB, and 100 kB an image."""
    taken = {"peak": 0}
    numbers = {"mem_get_info": lambda device: (9_000_000, 0), "memory_reserved": lambda device: 1_500_000}
    numbers |= {"memory_allocated": lambda device: 500_000, "empty_cache": lambda: None}
    numbers |= {"reset_peak_memory_stats": lambda device: None}
    numbers |= {"max_memory_allocated": lambda device: 500_000 + taken["peak"]}
    for name, value in numbers.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(memory, "mixed_precision", lambda amp, device: None)
    monkeypatch.setattr(memory, "trial_step", lambda model, batch, *_: taken.update(peak=100_000 * batch))
    settings = resolve("train", {})
    found = memory._largest_on_gpu(DetectionModel(tiny), settings, GPU, held=1_000_000, most=1000)
    assert found == int(0.75 * 10_000_000 - 1_000_000) // 100_000


def test_a_trial_changes_nothing(tiny: Any) -> None:
    model = DetectionModel(tiny).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    trial_step(model, 2, (64, 96), None, torch.device("cpu"))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(random, torch.get_rng_state())
    assert not model.training


# ------------------------------------------------------------------------------------------ full


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."), True),
        (RuntimeError("a and b must have the same shape"), False),
    ],
)
def test_which_errors_tell_of_memory(error: BaseException, expected: bool) -> None:
    assert is_full(error) == expected


def test_memory_that_is_full_names_a_smaller_batch(prepared: Prepared) -> None:
    trainer = prepared(batch=6)
    trainer._step = full  # type: ignore[method-assign]
    told = (
        r"out of memory on cpu with batch=6 at 64 x 64 px \(CUDA out of memory. Tried to allocate 2.00 GiB.\); batch=3 "
    )
    with pytest.raises(WorkError, match=told + "may fit$"):
        run_training(trainer)


def test_a_gpu_that_is_full_names_the_batch_that_was_measured_and_how_to_go_on(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(memory, "_largest_on_gpu", lambda model, settings, device, held, most: asked.append(most) or 4)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    trainer = prepared(batch=6, epochs=3, val=False)
    step = trainer._step
    trainer._step = lambda batch: full() if trainer.progress.epoch == 2 else step(batch)  # type: ignore

    def run() -> Any:
        try:
            return type(trainer).run(trainer)
        finally:
            trainer.device = GPU  # as if it had been there

    trainer.run = run  # type: ignore[method-assign]
    with pytest.raises(
        WorkError, match=r"cuda:0 with batch=6 .*; batch=4 would fit; gfldet train resume=\S+ batch=4 goes"
    ):
        train_in_memory(trainer)
    assert asked == [6]
    assert trainer.saved == 2


def test_what_a_failed_step_held_is_free_when_the_search_begins(
    prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Any] = []

    def step(batch: Any) -> Any:
        value = torch.zeros(9)
        held.append(weakref.ref(value))
        return full(value)

    trainer = prepared(batch=6)
    trainer._step = step  # type: ignore[method-assign]

    def made(trainer: Any, reason: str) -> WorkError:
        gc.collect()
        return WorkError(f"held: {held[0]() is not None}")

    monkeypatch.setattr(memory, "out_of_memory", made)
    with pytest.raises(WorkError, match="held: False"):
        train_in_memory(trainer)


def test_a_single_image_that_does_not_fit(prepared: Prepared) -> None:
    trainer = prepared(batch=1)
    trainer._step = full  # type: ignore[method-assign]
    with pytest.raises(
        WorkError, match="not even one image of 64 x 64 px fits on cpu; give a smaller imgsz or another"
    ):
        train_in_memory(trainer)


def test_other_errors_stay_what_they_are(prepared: Prepared) -> None:
    trainer = prepared()

    def step(batch: Any) -> Any:
        raise RuntimeError("shapes differ")

    trainer._step = step  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="shapes differ"):
        train_in_memory(trainer)


def test_the_command_line_exits_with_1(
    dataset: Callable[..., Any],
    quick: dict[str, Any],
    tiny_yaml: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(Trainer, "_step", full)
    settings = {**quick, "data": dataset().yaml, "model": tiny_yaml}
    assert cli.main(["train", *(f"{name}={value}" for name, value in settings.items())]) == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(
        "gfldet: the work failed: out of memory on cpu with batch=3 at 64 x 64 px (CUDA out of memory."
    )
    assert told.endswith("batch=1 may fit")
