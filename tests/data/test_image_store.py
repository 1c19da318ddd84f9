"""Images that are kept when they are first read, by whoever reads them; and those that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gfldet.data.draw import Augmentation
from gfldet.data.image_store import ImageStore
from gfldet.data.images import ImageError
from gfldet.data.load import load_images
from gfldet.data.spec import load_spec
from gfldet.data.train_set import TrainSet
from gfldet.machine.shared import Pool, pool
from gfldet.ops import letterbox


@pytest.fixture
def data(image, text) -> Path:
    """Six images of two sizes with a box each; a quick check lets d.jpg pass, and nobody can decode it."""
    for number, name in enumerate("abcdef"):
        image(f"images/{name}.jpg", 40 + 20 * (number % 2), 30)
        text(f"labels/{name}.txt", "0 .5 .5 .5 .5")
    return text("d.yaml", "train: images\nval: images\nnames: [cat]")


def damage(data: Path) -> Path:
    """Leaves the header and the end of d.jpg alone."""
    file = data.parent / "images/d.jpg"
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.find(b"\xff\xda")] + b"\xff\xda\x00\x02" + b"\xff\xd9")
    return file


def loaded(data: Path, memory: Pool, on_bad: str = "error", check: str = "quick", size: int = 32):
    return load_images(load_spec(data), "train", (size, size), memory, on_bad, lambda line: None, False, check=check)


def test_an_image_is_read_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, reads = loaded(data, Pool(1 << 20)), []
    read = one.store._read
    monkeypatch.setattr(one.store, "_read", lambda record: reads.append(record.file_name) or read(record))
    first = [one.store.get(record).copy() for record in one.split.records]
    assert reads == [f"{name}.jpg" for name in "abcdef"]
    assert all((one.store.get(record) == image).all() for record, image in zip(one.split.records, first, strict=True))
    assert len(reads) == 6
    full = loaded(data, Pool(1 << 20), check="full")
    monkeypatch.setattr(full.store, "_read", lambda record: pytest.fail("read again"))
    assert all((full.store.get(record) == image).all() for record, image in zip(full.split.records, first, strict=True))


def test_a_fork_keeps_for_the_others(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = loaded(data, pool(1 << 20))
    child = os.fork()
    if child == 0:
        one.store.get(one.split.records[2])
        os._exit(0)
    os.waitpid(child, 0)
    monkeypatch.setattr(one.store, "_read", lambda record: pytest.fail("read again"))
    assert one.store.get(one.split.records[2]).std() > 10


def test_two_splits_share_the_budget(data: Path) -> None:
    memory = Pool(10_000)  # 32 x 24 and 32 x 16 px, three each: 11,520 bytes
    train = loaded(data, memory)
    assert not train.store.complete
    assert memory.left == 10_000 - 3 * (3 * 32 * 24 + 2 * 32 * 16)
    val = loaded(data, memory)
    assert not val.store.complete
    assert memory.left == 10_000 - 3 * (3 * 32 * 24 + 2 * 32 * 16)


def test_what_changes_its_size_is_read_again_and_not_kept(data: Path, image) -> None:
    one = loaded(data, Pool(1 << 20))
    image("images/a.jpg", 30, 30)
    assert one.store.get(one.split.records[0]).shape == (30, 30, 3)
    assert not one.store._there.any()


@pytest.mark.parametrize("side", [(7, 7), (32, 96), (96, 32), (333, 1000)])
def test_an_image_has_the_place_that_it_needs(side: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    sizes = np.concatenate([rng.integers(1, 700, (300, 2)), [[1, 9000], [9000, 1], [7, 7], [8, 7], [7, 8]]])
    store = ImageStore(side, Pool(1 << 30), lambda record: pytest.fail("read"))
    store.place([str(number) for number in range(len(sizes))], sizes)
    for (width, height), shape in zip(sizes.tolist(), store._shapes.tolist(), strict=True):
        box = letterbox.fit(height, width, side)
        small = box.resized_height >= height
        assert shape == ([height, width] if small else [box.resized_height, box.resized_width])


def test_one_that_cannot_be_decoded_ends_the_run(data: Path) -> None:
    file = damage(data)
    one = loaded(data, Pool(1 << 20))
    for ask in (one.store.get, one.store.sample):
        with pytest.raises(ImageError) as caught:
            ask(one.split.records[3])
        assert str(caught.value).startswith(f"{file}: ")
        assert "check_images=full decodes every image there" in str(caught.value)
        assert "on_bad=skip" in str(caught.value)


def test_with_skip_nothing_is_learnt_from_it(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = loaded(data, Pool(0))
    pictures = [whole.store.sample(record) for record in whole.split.records]
    file = damage(data)
    one = loaded(data, Pool(1 << 20), on_bad="skip")
    capsys.readouterr()
    for record, before in zip(one.split.records, pictures, strict=True):
        sample = one.store.sample(record)
        if record.file_name == "d.jpg":
            assert sample.image.shape == before.image.shape
            assert (sample.image == letterbox.PAD_COLOUR).all()
            assert not len(sample.boxes)
            assert not len(sample.classes)
            assert sample.ignore.tolist() == [[0, 0, sample.image.shape[1], sample.image.shape[0]]]
        else:
            assert (sample.image == before.image).all()
            assert (sample.boxes == before.boxes).all()
    one.store.sample(one.split.records[3])
    assert capsys.readouterr().err.count(f"left out (on_bad=skip): {file}: ") == 1
    with pytest.raises(ImageError):  # a validation must measure all images that it counts
        one.store.get(one.split.records[3])


def test_samples_are_the_same_whatever_is_kept_and_when(data: Path) -> None:
    def samples(memory: Pool, check: str) -> list[tuple[bytes, bytes]]:
        one = loaded(data, memory, check=check, size=64)
        made = TrainSet(one.split, one.store, (64, 64), 4, 3, Augmentation(mixup=0.5, degrees=5))
        batches = [made.load(key) for epoch in range(2) for key in made.keys(epoch)]
        return [(batch.images.numpy().tobytes(), batch.boxes_px.numpy().tobytes()) for batch in batches]

    ways: list[tuple[Callable[[], Pool], str]] = [
        (lambda: Pool(0), "full"),
        (lambda: pool(1 << 20), "full"),
        (lambda: Pool(20_000), "quick"),
        (lambda: pool(1 << 20), "quick"),
    ]
    first, *others = [samples(memory(), check) for memory, check in ways]
    assert all(one == first for one in others)
