"""Findings about whole pictures: there more than once, in two splits, of one colour."""

from __future__ import annotations

import numpy as np

from gfldet.data.records import Finding
from gfldet.health.codes import KINDS
from gfldet.health.duplicates import Pair, nearly_same, same_pixels
from gfldet.health.survey import THUMB, Picture, Survey

BLANK = 1.0  # grey levels; the standard deviation of an image of one colour


def findings_of_pictures(survey: Survey) -> list[Finding]:
    """All findings about pictures, of each code the most alike first."""
    pictures = survey.pictures
    splits = [picture.split for picture in pictures]
    same = same_pixels([picture.pixels.digest for picture in pictures], splits)
    told = {(splits[pair.first] == splits[pair.second], pair.second) for pair in same}
    thumbs = np.stack([picture.pixels.thumb for picture in pictures]) if pictures else np.zeros((0, THUMB, THUMB))
    near = [
        pair
        for pair in nearly_same(thumbs.astype(np.float32), splits)
        if (splits[pair.first] == splits[pair.second], pair.second) not in told
    ]
    near.sort(key=lambda pair: -pair.likeness)
    found = [_pair(survey, pair) for pair in same if not _listed_again(survey, pair)]
    found += [_pair(survey, pair, near=True) for pair in near]
    return found + [_blank(picture) for picture in pictures if picture.pixels.contrast < BLANK]


def _listed_again(survey: Survey, pair: Pair) -> bool:
    """Whether the two are one file of one split, which has a finding of its own."""
    first, second = survey.pictures[pair.first], survey.pictures[pair.second]
    return first.split == second.split and first.record.path == second.record.path


def _pair(survey: Survey, pair: Pair, near: bool = False) -> Finding:
    first, second = survey.pictures[pair.first], survey.pictures[pair.second]
    within = first.split == second.split
    code = ("image-nearly-" if near else "image-") + ("repeated" if within else "in-two-splits")
    told = f"nearly the same picture ({pair.likeness:.1%} alike) as" if near else "the same picture as"
    other = f"{first.record.file_name}" if within else f"{first.record.file_name} of {first.split}"
    text = f"{second.split}: {second.record.file_name}: {told} {other}"
    if not within and second.split == "val":
        text += "; AP then tells what the model remembers"
    path = second.record.path
    return Finding(code, KINDS[code].severity, text, path, split=second.split, image=path, other=first.record.path)


def _blank(picture: Picture) -> Finding:
    path, text = picture.record.path, f"{picture.split}: {picture.record.file_name}: the image is of one colour"
    return Finding("image-blank", KINDS["image-blank"].severity, text, path, split=picture.split, image=path)
