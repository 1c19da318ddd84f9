"""Boxes and labels: where their pixels are, that nothing is clipped, that text can be read."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from gfldet.viz import draw


def blank(height=240, width=320):
    return np.full((height, width, 3), 90, np.uint8)


def changed(image):
    """Rows and columns that differ from `blank`: (top, left, bottom, right), inclusive."""
    rows, columns = np.nonzero((image != 90).any(axis=2))
    return rows.min(), columns.min(), rows.max(), columns.max()


def test_a_box_is_drawn_on_its_border_in_its_colour():
    image = blank()
    draw.draw_boxes(image, [[50, 60, 150, 160]], [2], line_width=1)
    assert changed(image) == (60, 50, 160, 150)
    assert tuple(image[60, 100]) == draw.class_colour(2)
    assert (image[61:160, 51:150] == 90).all()


def test_boxes_beyond_the_image_stay_visible_at_its_border():
    image = blank()
    draw.draw_boxes(image, [[-50, -50, 500, 500]], [0], line_width=1)
    assert tuple(image[0, 100]) == tuple(image[239, 100]) == tuple(image[100, 319]) == draw.class_colour(0)


@pytest.mark.parametrize(
    "box", [(0, 0, 30, 30), (300, 0, 319, 20), (290, 225, 319, 239), (0, 230, 20, 239), (0, 0, 319, 239)]
)
def test_labels_stay_inside_the_image(box):
    sizes = [draw._strip_size("a longer label 0.95", 0.5)]
    ((left, top),) = draw._place_labels([list(box)], sizes, (320, 240), 2)
    width, height, _ = sizes[0]
    assert left >= 0
    assert top >= 0
    assert left + width <= 320
    assert top + height <= 240


def test_a_label_stands_above_its_box_where_there_is_room():
    size = draw._strip_size("cell", 0.5)
    ((left, top),) = draw._place_labels([[100, 100, 200, 200]], [size], (320, 240), 1)
    assert (left, top) == (100, 100 - size[1])


def test_labels_of_crowded_boxes_do_not_hide_each_other():
    boxes = [[100, 100, 200, 200], [104, 102, 205, 200], [96, 98, 190, 190]]
    sizes = [draw._strip_size("cell 0.50", 0.4)] * 3
    strips = [
        (left, top, left + width, top + height)
        for (left, top), (width, height, _) in zip(draw._place_labels(boxes, sizes, (320, 240), 1), sizes, strict=True)
    ]
    for a, b in itertools.combinations(strips, 2):
        assert min(a[2], b[2]) <= max(a[0], b[0]) or min(a[3], b[3]) <= max(a[1], b[1])


def test_a_label_wider_than_the_image_starts_at_its_left():
    image = blank(60, 40)
    draw.draw_boxes(image, [[5, 30, 30, 50]], [0], ["a label that cannot fit"])
    ((left, top),) = draw._place_labels([[5, 30, 30, 50]], [(200, 14, 2)], (40, 60), 1)
    assert left == 0
    assert 0 <= top <= 46


def test_the_first_box_lies_on_top():
    image = blank()
    draw.draw_boxes(image, [[50, 50, 150, 150], [50, 50, 150, 150]], [0, 4], line_width=2)
    assert tuple(image[50, 100]) == draw.class_colour(0)


def test_nothing_to_draw():
    image = blank()
    draw.draw_boxes(image, np.zeros((0, 4)), [], [])
    assert (image == 90).all()


def test_lines_get_thinner_where_boxes_are_crowded_and_thicker_on_large_images():
    assert draw.default_line_width(480, 640, 10) == 2
    assert draw.default_line_width(480, 640, 200) == 1
    assert draw.default_line_width(3000, 4000, 10) == 12
    assert draw.default_line_width(40, 40, 1) == 1


def test_colours_differ():
    colours = [draw.class_colour(i) for i in range(21)]
    assert len(set(colours)) == 21
    assert all(0 <= v <= 255 for colour in colours for v in colour)
    assert draw.class_colour(21) == draw.class_colour(0)


@pytest.mark.parametrize("index", range(21))
def test_text_has_contrast(index):
    def luminance(colour):
        linear = [v / 255 / 12.92 if v / 255 <= 0.04045 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    colour = draw.class_colour(index)
    high, low = sorted([luminance(colour), luminance(draw.text_colour(colour))], reverse=True)
    assert (high + 0.05) / (low + 0.05) >= 4.5  # WCAG AA


def test_letters_without_a_font_become_plain_ones(monkeypatch):
    monkeypatch.setattr(cv2, "__version__", "4.10.0")
    assert draw.drawable("RBC 0.5") == "RBC 0.5"
    assert draw.drawable("Zelle Größe é") == "Zelle Gro?e e"
    assert draw.drawable("猫") == "?"


def test_captions_are_cut_in_the_middle_and_never_clipped():
    strip = np.full((22, 150, 3), 255, np.uint8)
    draw.draw_caption(strip, "a/very/long/path/to/an/image/that/does/not/fit.jpg")
    assert (strip != 255).any()
    assert (strip[:, -2:] == 255).all()
    empty = np.full((22, 150, 3), 255, np.uint8)
    draw.draw_caption(empty, "")
    assert (empty == 255).all()
