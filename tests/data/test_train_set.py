"""Index -> samples -> batches: the same from any thread and from any store, boxes where the pixels are."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from gfldet.data.draw import NO_AUGMENTATION, Augmentation
from gfldet.data.eval_set import EvalSet
from gfldet.data.image_store import ImageStore
from gfldet.data.loader import in_order
from gfldet.data.records import Record, Split
from gfldet.data.sample import Sample
from gfldet.data.train_set import SAMPLES, CustomAt, TrainSet, collate
from gfldet.errors import DataError
from gfldet.machine.shared import Pool

RED = np.array([255, 0, 0])
SIZE = (64, 64)


def record(number: int, width: int, height: int, ignore: bool = False) -> Record:
    """A record whose image has a red box over the middle of its left half."""
    box = np.array([[width // 8, height // 4, 3 * width // 8, 3 * height // 4]], np.float32)
    nothing = np.zeros((0, 4), np.float32)
    return Record(
        Path(f"{number}.png"), number, f"{number}.png", width, height, box, np.array([0]), box if ignore else nothing
    )


def read(one: Record) -> np.ndarray:
    image = np.random.default_rng(int(one.image_id)).integers(70, 110, (one.height, one.width, 3), np.uint8)
    left, top, right, bottom = one.boxes[0].astype(int)
    image[top:bottom, left:right] = RED
    return image


SPLIT = Split("train", tuple(record(i, 64 + 16 * (i % 3), 80 - 8 * (i % 4)) for i in range(7)), ("a",), (0,))


def store(budget: int, split: Split = SPLIT, reader: Callable[[Record], np.ndarray] = read) -> ImageStore:
    made = ImageStore(SIZE, Pool(budget), reader)
    made.place(split.records.paths, split.records.sizes)
    for one in split.records:
        made.keep(str(one.path), read(one))
    return made


def fail(one: Record) -> np.ndarray:
    raise AssertionError(f"{one.file_name} was read again")


# ---------------------------------------------------------------------------------------------------- the store


def test_store_keeps_what_fits_and_reads_the_rest_anew() -> None:
    sizes = [ImageStore(SIZE, Pool(0), read).get(one).nbytes for one in SPLIT.records]
    budget = sum(sizes[:3]) + 10
    reads: list[str] = []

    def counted(one: Record) -> np.ndarray:
        reads.append(one.file_name)
        return read(one)

    part = store(budget, reader=counted)
    assert 0 <= part.left < budget
    assert part.left == budget - sum(size for size in sizes[:3])
    assert not part.complete
    whole = store(1 << 30, reader=fail)
    assert whole.complete
    for one in SPLIT.records:
        assert (part.get(one) == whole.get(one)).all()
    assert reads == [one.file_name for one in SPLIT.records[3:]]


def test_store_takes_images_from_many_threads_within_its_budget() -> None:
    many = [record(i, 64, 64) for i in range(200)]
    one = 64 * 64 * 3
    full = ImageStore(SIZE, Pool(50 * one), fail)
    full.place([str(r.path) for r in many], np.full((200, 2), 64))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda r: full.keep(str(r.path), np.full((64, 64, 3), int(r.image_id), np.uint8)), many))
    assert full.left == 0
    assert not full.complete
    assert [full.get(r).mean() for r in many[:50]] == list(range(50))
    with pytest.raises(AssertionError, match="was read again"):
        full.get(many[50])


@pytest.mark.parametrize(
    ("height", "width", "kept"), [(128, 64, (64, 32)), (50, 200, (16, 64)), (40, 30, (40, 30)), (1, 9000, (1, 9000))]
)
def test_store_shrinks_images_to_its_size_and_truths_with_them(height: int, width: int, kept: tuple[int, int]) -> None:
    one = Record(
        Path("x"),
        0,
        "x",
        width,
        height,
        np.array([[0, 0, width, height]], np.float32),
        np.array([0]),
        np.array([[0, 0, width / 2, height]], np.float32),
    )
    made = ImageStore(SIZE, Pool(1 << 30), fail)
    made.place(["x"], np.array([[width, height]]))
    made.keep("x", np.zeros((height, width, 3), np.uint8))
    sample = made.sample(one)
    assert sample.image.shape == (*kept, 3)
    np.testing.assert_allclose(sample.boxes, [[0, 0, kept[1], kept[0]]])
    np.testing.assert_allclose(sample.ignore, [[0, 0, kept[1] / 2, kept[0]]])


# ----------------------------------------------------------------------------------------------------- training


MIXED = Augmentation(mixup=0.5, degrees=10)


def train_set(budget: int = 1 << 30, seed: int = 0, batch: int = 3, augmentation: Augmentation = MIXED) -> TrainSet:
    return TrainSet(SPLIT, store(budget), (64, 96), batch, seed, augmentation)


def test_every_image_once_an_epoch_in_an_order_of_its_own() -> None:
    data = train_set()
    assert len(data) == 3
    orders = {}
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        keys = list(train_set(seed=seed).keys(epoch))
        assert [len(numbers) for _, numbers in keys] == [3, 3, 1]
        assert {e for e, _ in keys} == {epoch}
        orders[seed, epoch] = tuple(int(n) for _, numbers in keys for n in numbers)
        assert sorted(orders[seed, epoch]) == list(range(7))
    assert len(set(orders.values())) == 3
    assert [n.tolist() for _, n in data.keys(1)] == [n.tolist() for _, n in data.keys(1)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("budget", [0, 30_000, 1 << 30])
def test_batches_are_the_same_from_any_store_and_any_thread(workers: int, budget: int) -> None:
    plain, other = train_set(), train_set(budget)
    expected = [plain.load(key) for key in plain.keys(2)]
    got = list(in_order(other.load, other.keys(2), workers))
    for a, b in zip(expected, got, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.boxes_px, b.boxes_px)
        assert torch.equal(a.batch_idx, b.batch_idx)
        assert a.files == b.files


@pytest.mark.parametrize("strengths", [MIXED, Augmentation(), Augmentation(mosaic=0.5, mixup=1.0), NO_AUGMENTATION])
def test_repeated_images_are_shown_as_often_as_wanted(strengths: Augmentation) -> None:
    """What counts is the share among all pictures shown: tiles of mosaics and what mixup adds, not the order alone."""
    factors = np.array([6.0, 1, 1, 1, 1, 1.5, 2.5])
    data = TrainSet(SPLIT, store(0), (64, 96), 3, 0, strengths, repeats=factors)
    shown = np.zeros(7)
    for epoch in range(40):
        for _, numbers in data.keys(epoch):
            for number in numbers:
                drawn = data.drawn(epoch, int(number), strengths)
                for layout in filter(None, (drawn.layout, drawn.other)):
                    shown += np.bincount([placed.image for placed in layout.images], minlength=7)
    np.testing.assert_allclose(shown / shown.sum(), factors / factors.sum(), atol=0.03)


def test_equal_repeats_draw_what_none_draw() -> None:
    plain, equal = train_set(), TrainSet(SPLIT, store(0), (64, 96), 3, 0, MIXED, repeats=np.ones(7))
    assert all(plain.drawn(1, number, MIXED) == equal.drawn(1, number, MIXED) for number in range(40))


def test_a_sample_follows_from_seed_epoch_and_number_alone() -> None:
    data = train_set()
    first = data.sample(3, 5, data.augmentation)
    for number in (1, 5, 0):  # whatever was made in between
        last = data.sample(3, number, data.augmentation)
    again = data.sample(3, 5, data.augmentation)
    assert (first.image == again.image).all()
    assert first.boxes.tolist() == again.boxes.tolist()
    others = [last, data.sample(4, 5, data.augmentation), train_set(seed=1).sample(3, 5, data.augmentation)]
    assert all((first.image != other.image).any() for other in others)


def test_batch_by_hand() -> None:
    def sample(shade: int, boxes: list[list[float]], classes: list[int], ignore: list[list[float]]) -> Sample:
        image = np.full((20, 40, 3), shade, np.uint8)
        image[..., 0] = 255
        return Sample(
            image,
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(classes, np.int64),
            np.array(ignore, np.float32).reshape(-1, 4),
        )

    batch = collate(
        [
            sample(51, [[0, 0, 40, 20], [10, 5, 20, 15]], [3, 1], []),
            sample(0, [], [], [[20, 0, 40, 10]]),
            sample(102, [[4, 2, 8, 4]], [0], [[0, 0, 4, 4]]),
        ],
        ["a", "b", "c"],
    )
    assert batch.files == ("a", "b", "c")
    assert batch.batch_idx.tolist() == [0, 0, 2]
    assert batch.cls.tolist() == [[3], [1], [0]]
    assert batch.boxes_px.tolist() == [[0, 0, 40, 20], [10, 5, 20, 15], [4, 2, 8, 4]]
    assert batch.ignore_idx.tolist() == [1, 2]
    assert batch.ignore_px.tolist() == [[20, 0, 40, 10], [0, 0, 4, 4]]
    given = batch.to(torch.device("cpu"))
    assert given["img"].shape == (3, 3, 20, 40)
    assert given["img"].is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(given["img"][:, :, 7, 7], [[1, 0.2, 0.2], [1, 0, 0], [1, 0.4, 0.4]], rtol=1e-6)


def test_batch_of_backgrounds() -> None:
    nothing = np.zeros((0, 4), np.float32)
    empty = Sample(np.zeros((8, 8, 3), np.uint8), nothing, np.zeros(0, np.int64), nothing)
    batch = collate([empty, empty], ["a", "b"])
    assert batch.boxes_px.shape == batch.ignore_px.shape == (0, 4)
    assert (batch.cls.shape, batch.batch_idx.shape, batch.batch_idx.dtype) == ((0, 1), (0,), torch.int64)


def test_a_batch_takes_any_number_of_boxes() -> None:
    boxes = np.tile(np.array([[1, 1, 3, 3]], np.float32), (7000, 1))
    sample = Sample(np.zeros((8, 8, 3), np.uint8), boxes, np.zeros(7000, np.int64), boxes[:0])
    assert len(collate([sample, sample], ["a", "b"]).boxes_px) == 14000


def test_augmentation_of_ones_own() -> None:
    seen: list[Sample] = []

    def mine(sample: Sample, rng: np.random.Generator) -> Sample:
        seen.append(sample)
        sample.image[:] = rng.integers(0, 255)
        sample.boxes[:] = [[0, 0, 8, 4]]
        return Sample(sample.image[:16, :32], sample.boxes, sample.classes, sample.ignore)

    kept = store(1 << 30, reader=fail)
    before = [kept.get(one).copy() for one in SPLIT.records]
    data = TrainSet(SPLIT, kept, (64, 96), 3, 0, Augmentation(), mine)
    first, second = data.sample(0, 2, data.augmentation), data.sample(0, 2, data.augmentation)
    assert len(seen) == 2
    assert first.image.shape == (64, 96, 3)
    assert (first.image == second.image).all()  # the generator it is given is that of the sample
    np.testing.assert_allclose(first.boxes, [[0, 8, 24, 20]])  # letterboxed: three times as large, 8 px lower
    assert all((kept.get(one) == image).all() for one, image in zip(SPLIT.records, before, strict=True))


def test_an_augmentation_of_ones_own_before_the_default_one() -> None:
    seen: list[tuple[int, ...]] = []

    def mine(sample: Sample, rng: np.random.Generator) -> Sample:
        seen.append(sample.image.shape)
        sample.image[:] = 200
        return Sample(sample.image, sample.boxes[:0], sample.classes[:0], sample.ignore)

    data = TrainSet(SPLIT, store(0), (64, 96), 3, 0, replace(Augmentation(), hsv_h=0, hsv_s=0, hsv_v=0), mine, "before")
    made = data.sample(0, 2, data.augmentation)
    assert len(seen) == 4  # the four images of a mosaic, as they were read
    assert set(seen) <= {store(0).get(one).shape for one in SPLIT.records}
    assert made.image.shape == (64, 96, 3)
    assert set(np.unique(made.image)) <= {114, 200}
    assert len(made.boxes) == 0


def test_an_augmentation_of_ones_own_after_the_default_one() -> None:
    def mine(sample: Sample, rng: np.random.Generator) -> Sample:
        assert sample.image.shape == (64, 96, 3)
        return Sample(sample.image[:, ::-1], sample.boxes[:0], sample.classes[:0], np.array([[0, 0, 5, 5]]))

    plain = train_set(augmentation=MIXED)
    data = TrainSet(SPLIT, store(0), (64, 96), 3, 0, MIXED, mine, "after")
    made, without = data.sample(0, 2, data.augmentation), plain.sample(0, 2, plain.augmentation)
    assert (made.image == without.image[:, ::-1]).all()  # what we draw is not changed by what a user draws
    assert made.boxes.shape == (0, 4)
    assert made.ignore.tolist() == [[0, 0, 5, 5]]
    half = TrainSet(SPLIT, store(0), (64, 96), 3, 0, MIXED, lambda s, rng: replace(s, image=s.image[::2]), "after")
    assert half.sample(0, 2, MIXED).image.shape == (64, 96, 3)  # brought to the frame again


def test_boxes_of_an_augmentation_of_ones_own_are_obeyed_before_and_after() -> None:
    """Image 0, 64 x 80, stands in the frame of 96 x 64 as 51.2 x 64, in the middle: 22.4 px from the left."""

    def mine(sample: Sample, rng: np.random.Generator) -> Sample:
        sides = np.array(sample.image.shape[1::-1] * 2)
        boxes = np.array([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]]) * sides  # upper left and lower right quarter
        return Sample(sample.image, boxes.astype(np.float32), np.array([0, 0]), boxes[:1].astype(np.float32))

    before = TrainSet(SPLIT, store(0), (64, 96), 3, 0, NO_AUGMENTATION, mine, "before")
    made = before.sample(0, 0, NO_AUGMENTATION)
    np.testing.assert_allclose(made.boxes, [[22.4, 0, 48, 32], [48, 32, 73.6, 64]], atol=0.5)  # whole pixels
    np.testing.assert_allclose(made.ignore, made.boxes[:1])
    after = TrainSet(SPLIT, store(0), (64, 96), 3, 0, MIXED, mine, "after")
    made = after.sample(0, 0, MIXED)
    assert made.boxes.tolist() == [[0, 0, 48, 32], [48, 32, 96, 64]]
    assert made.ignore.tolist() == [[0, 0, 48, 32]]
    batch = after.load((0, np.array([0, 1])))
    assert batch.boxes_px.tolist() == 2 * made.boxes.tolist()
    assert batch.batch_idx.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("place", ["before", "after"])
def test_what_a_user_draws_changes_nothing_of_what_we_draw(place: CustomAt) -> None:
    theirs: list[float] = []

    def idle(sample: Sample, rng: np.random.Generator) -> Sample:
        theirs.extend(rng.random(1000).tolist())
        return sample

    ours = {value for number in range(4) for value in np.random.default_rng((0, SAMPLES, 1, number)).random(1000)}
    plain, data = train_set(), TrainSet(SPLIT, store(0), (64, 96), 3, 0, MIXED, idle, place)
    for number in range(4):
        made, without = data.sample(1, number, MIXED), plain.sample(1, number, MIXED)
        assert (made.image == without.image).all()
        assert made.boxes.tolist() == without.boxes.tolist()
    assert theirs
    assert not ours & set(theirs)  # two streams, not the same one twice


def test_another_strength_of_colour_leaves_the_mosaic_as_it_was() -> None:
    pale = replace(MIXED, hsv_h=0.3, hsv_s=0.0)
    for number in range(7):
        one, other = (train_set().sample(0, number, strengths) for strengths in (MIXED, pale))
        assert one.boxes.tolist() == other.boxes.tolist()
        assert one.classes.tolist() == other.classes.tolist()
        assert (one.image != other.image).any()


@pytest.mark.parametrize("place", ["instead", "before", "after"])
def test_bad_output_of_an_augmentation_names_it(place: CustomAt) -> None:
    def careless(sample: Sample, rng: np.random.Generator) -> Sample:
        return Sample(sample.image, sample.boxes, sample.classes[:0], sample.ignore)

    strengths = NO_AUGMENTATION  # one box, in each place
    data = TrainSet(SPLIT, store(0), (64, 96), 3, 0, strengths, careless, place)
    with pytest.raises(DataError, match="augment careless: 1 box but 0 classes"):
        data.sample(0, 0, strengths)


def test_no_augmentation_letterboxes() -> None:
    data = train_set(augmentation=NO_AUGMENTATION)
    batch = data.load((0, np.array([0])))
    one = SPLIT.records[0]  # 64 x 80 into 96 x 64: 51 x 64, in the middle
    low, high = batch.boxes_px[0, :2], batch.boxes_px[0, 2:]
    np.testing.assert_allclose(torch.cat(((low + high) / 2, high - low)), [48 - 51.2 / 4, 32, 12.8, 32], atol=0.4)
    assert batch.files == (one.file_name,)


# --------------------------------------------------------------------------------------------------- validation


def test_validation_frames_hold_each_image_once_without_waste() -> None:
    split = Split(
        "val",
        tuple(record(i, w, h) for i, (w, h) in enumerate([(64, 64), (128, 60), (30, 100), (120, 64), (64, 64)])),
        ("a",),
        (0,),
    )
    data = EvalSet(split, store(0, split), SIZE, batch=2, stride=32)
    keys = data.keys()
    assert sorted(n for _, numbers in keys for n in numbers) == [0, 1, 2, 3, 4]
    assert {n: frame for frame, numbers in keys for n in numbers} == {
        0: (64, 64),
        1: (32, 64),
        2: (64, 32),
        3: (64, 64),  # 34 px high at this size
        4: (64, 64),
    }
    assert max(len(numbers) for _, numbers in keys) == 2
    square = EvalSet(split, store(0, split), (64, 96), batch=2, stride=32, rect=False)
    keys = square.keys()
    assert {frame for frame, _ in keys} == {(64, 96)}


@pytest.mark.parametrize("rect", [True, False])
@pytest.mark.parametrize("budget", [0, 1 << 30])
def test_validation_boxes_go_to_the_frame_and_back(rect: bool, budget: int) -> None:
    split = Split("val", tuple(record(i, 40 + 23 * i, 100 - 9 * i) for i in range(6)), ("a",), (0,))
    data = EvalSet(split, store(budget, split), SIZE, batch=4, stride=32, rect=rect)
    keys = data.keys()
    for key in keys:
        batch = data.load(key)
        for image, one, box in zip(batch.images, batch.records, batch.boxes, strict=True):
            red = np.abs(image.astype(int) - RED).max(-1) < 85
            rows, columns = red.any(1).nonzero()[0], red.any(0).nonzero()[0]
            there = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32)
            np.testing.assert_allclose(box.forward(one.boxes), there, atol=1.1)
            np.testing.assert_allclose(box.inverse(box.forward(one.boxes)), one.boxes, atol=1e-3)
