"""The public weights that gfldet can start from: published facts, and how they are shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from itertools import groupby
from pathlib import Path, PurePosixPath

from gfldet.errors import ConfigError

MIB = 1024**2


@dataclass(frozen=True, slots=True)
class PublicWeights:
    """One file, as its authors publish it.

    name        what a user calls it
    family      whose it is, as its reader in `imports` names it
    licence     the one that its authors publish it under
    fits        models of ours that take it; of a `body_only` file the layers below the head alone
    ap          published AP50-95 on COCO val2017, in per cent, at `pixels`
    pixels      side of the image; of torchvision's the shorter side
    parameters  published, in millions, as the model detects
    address     of the file; empty where the package torchvision names it
    page        of its project
    mebibytes   size of the file where it is published, else None
    sha256      its first hexadecimal digits where they are published
    """

    name: str
    family: str
    licence: str
    fits: tuple[str, ...]
    body_only: bool
    ap: float
    pixels: int
    parameters: float
    address: str
    page: str
    mebibytes: float | None = None
    sha256: str = ""

    @property
    def file(self) -> str:
        """The name of its file here."""
        return self.name + (PurePosixPath(self.address).suffix or ".pth")


def _yolov9(size: str, ap: float, parameters: float) -> PublicWeights:
    page = "https://github.com/MultimediaTechLab/YOLO"
    return PublicWeights(
        name=f"v9-{size}",
        family="YOLOv9",
        licence="MIT",
        fits=(f"gfldet-v9-{size}",),
        body_only=False,
        ap=ap,
        pixels=640,
        parameters=parameters,
        address=f"{page}/releases/download/v1.0-alpha/v9-{size}.pt",
        page=page,
    )


def _yolox(size: str, ap: float, parameters: float, pixels: int = 640) -> PublicWeights:
    page = "https://github.com/Megvii-BaseDetection/YOLOX"
    return PublicWeights(
        name=f"yolox_{size}",
        family="YOLOX",
        licence="Apache-2.0",
        fits=(f"gfldet-yolox-{size}",),
        body_only=True,
        ap=ap,
        pixels=pixels,
        parameters=parameters,
        address=f"{page}/releases/download/0.1.1rc0/yolox_{size}.pth",
        page=page,
    )


def _torchvision(
    name: str, detector: str, ap: float, parameters: float, mebibytes: float, sha256: str
) -> PublicWeights:
    return PublicWeights(
        name=name,
        family=f"torchvision's {detector}",
        licence="BSD-3-Clause",
        fits=("gfl-r50", "atss-r50", "gflv2-r50", "retinanet-r50"),
        body_only=True,
        ap=ap,
        pixels=800,
        parameters=parameters,
        address="",
        page="https://github.com/pytorch/vision",
        mebibytes=mebibytes,
        sha256=sha256,  # torch.hub's custom: a file's name ends with the beginning of its hash
    )


WEIGHTS: Mapping[str, PublicWeights] = {
    weights.name: weights
    for weights in (
        _yolov9("t", 38.3, 2.0),
        _yolov9("s", 46.8, 7.1),
        _yolov9("m", 51.4, 20.0),
        _yolov9("c", 53.0, 25.3),
        _yolox("nano", 25.8, 0.91, pixels=416),
        _yolox("tiny", 32.8, 5.06, pixels=416),
        _yolox("s", 40.5, 9.0),
        _yolox("m", 46.9, 25.3),
        _yolox("l", 49.7, 54.2),
        _yolox("x", 51.1, 99.1),
        _torchvision("retinanet_resnet50_fpn", "RetinaNet", 36.4, 34.0, 130.3, "eeacb38b"),
        _torchvision("fcos_resnet50_fpn", "FCOS", 39.2, 32.3, 123.6, "99b0c9b7"),
    )
}


def named(name: str) -> PublicWeights:
    """The weights of this name; ConfigError, with the nearest name, if there are none."""
    found = WEIGHTS.get(name)
    if found is None:
        near = get_close_matches(name.lower(), WEIGHTS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(
            f"{name}: no public weights of this name{hint}\nThere are {', '.join(WEIGHTS)}; `gfldet weights` lists "
            "them. A file that you have already is given by its path, as in pretrained=FILE."
        )
    return found


def shown(folder: Path) -> str:
    """All of them as a table for people, by family, with those marked that lie in `folder`."""
    lines = []
    for family, group in groupby(WEIGHTS.values(), key=lambda weights: weights.family):
        members = list(group)
        first = members[0]
        lines.append(f"\n{family} ({first.page}), licence {first.licence}")
        lines.append(_row("name", "AP", "px", "parameters", "size", "here", "fits"))
        for one in members:
            file = folder / one.file
            here = file.is_file()
            mebibytes = file.stat().st_size / MIB if here else one.mebibytes
            size = "" if mebibytes is None else f"{mebibytes:.0f} MiB"
            fits = f"{'the body of ' if one.body_only else ''}{', '.join(one.fits)}"
            numbers = (f"{one.ap}", f"{one.pixels}", f"{one.parameters} M", size)
            lines.append(_row(one.name, *numbers, "yes" if here else "", fits))
            lines.append(f"      {one.address or 'torchvision, which is installed beside, names the address'}")
    return "\n".join(
        (
            "Public weights that gfldet can start from. AP is that of COCO val2017, as published, at px pixels.",
            *lines,
            "",
            f"They go to {folder}",
            "  gfldet weights get NAME           downloads one, once; nothing else ever uses the network",
            "  gfldet train pretrained=NAME ...  starts from it",
            "Their licence is their authors'; it holds for what is trained from them too.",
        )
    )


def _row(name: str, ap: str, pixels: str, parameters: str, size: str, here: str, fits: str) -> str:
    return f"  {name:<22} {ap:>5} {pixels:>4} {parameters:>11} {size:>8} {here:>5}  {fits}"


def as_json(folder: Path) -> str:
    """All of them as a JSON list; `path` is null for one that does not lie in `folder`."""
    rows = []
    for one in WEIGHTS.values():
        path = folder / one.file
        rows.append({**asdict(one), "path": str(path) if path.is_file() else None})
    return json.dumps(rows, indent=2)
