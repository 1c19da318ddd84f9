"""Detection heads: feature maps of several levels -> box bins and class logits -> decoded boxes and scores.

GFLHead      a branch a level, as YOLOv8 has it
GroupedHead  the same, in which each side of a box has a branch of its own, as in YOLOv9
PlainHead    nothing but the 1x1 convolutions that predict, as NanoDet has it behind the rows of its levels
SharedHead   one pair of four-convolution subnets for all levels, as RetinaNet, FCOS, ATSS and GFL have it
EndToEnd     two heads of one kind on the same features, of which inference runs the one that needs no NMS
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gfldet.nn.blocks import Conv
from gfldet.ops.decode import Decoded, HeadMaps

DGQP_TOP = 4  # probabilities of a side that the quality predictor looks at


class DetectionHead(nn.Module):
    """What the rest of the house knows of a head, whichever it is.

    Feature maps (B, c_l, H / s, W / s) -> maps (B, 4R + C, H / s, W / s), one a level, of which the losses and `decode`
    make boxes and scores.  An end-to-end head gives two such lists in train mode (see `EndToEnd`).  `strides` are those
    of the levels; the builder measures and sets them.
    """

    end2end = False
    strides: tuple[int, ...]

    def outputs(self, maps: Sequence[Tensor]) -> HeadMaps:
        """Maps (B, 4R + C, H / s, W / s) with what is needed to decode them."""
        raise NotImplementedError

    def decode(self, maps: Sequence[Tensor], keep_bins: bool = False) -> Decoded:
        """Maps (B, 4R + C, H / s, W / s) -> boxes and scores over all points, with `keep_bins` the bins too."""
        return self.outputs(maps).decoded(keep_bins)

    def class_rows(self) -> tuple[str, ...]:
        """Names of the parameters that have a row for each class, relative to the head."""
        raise NotImplementedError

    def box_names(self) -> tuple[str, ...]:
        """Names of the parameters and buffers that boxes alone are made with, relative to the head."""
        raise NotImplementedError

    def predicting(self) -> list[Tensor]:
        """The weights of the layers whose outputs are the predictions."""
        raise NotImplementedError

    def init_biases(self, prior: float = 0.01, half_side: float | None = None) -> None:
        """Start from low scores and, if the data's half side is known, from boxes of about its size.

        `prior` is the score that every class starts at, so that the many negatives do not swamp the first steps
        (RetinaNet, section 4.1).  `half_side` is the median half side of the data set's boxes in input pixels: the bins
        start as a bell around it, in strides, so that IoU with the truths is not near zero when assignment begins.
        """
        raise NotImplementedError


class Head(DetectionHead):
    """A head as the registry `build.HEADS` holds it, and what such heads share: maps joined bins first, decoding.

    A new one is a subclass with a forward, `class_rows`, `predicting` and `init_biases`, and with this signature:
    `channels` are those of the levels that it is given.  With R = 1 a side is one number (its softplus, in strides)
    instead of a distribution.  `box_parts` are the names that the parts of its box branch begin with.
    """

    box_parts: tuple[str, ...] = ("box", "level_bias")

    def __init__(self, nc: int, reg_max: int, channels: Sequence[int], dgqp: bool = False) -> None:
        super().__init__()
        self.nc = nc
        self.reg_max = reg_max
        self.strides = ()
        # The bin values, a fixed parameter: the published parameter counts of the YOLOv8 graph include them.
        self.bins = nn.Parameter(torch.arange(reg_max, dtype=torch.float32), requires_grad=False)
        self.quality = QualityPredictor(reg_max) if dgqp else None

    def join(self, box: Tensor, cls: Tensor) -> Tensor:
        """One level's bins (B, 4R, H, W) and class logits (B, C, H, W) -> its map."""
        if self.quality is not None:
            cls = joint_logit(cls.float(), self.quality(box).float()).to(cls.dtype)
        return torch.cat((box, cls), dim=1)

    def outputs(self, maps: Sequence[Tensor]) -> HeadMaps:
        return HeadMaps(maps, self.nc, self.bins, self.reg_max, self.strides)

    def box_names(self) -> tuple[str, ...]:
        return tuple(name for name in self.state_dict() if name.startswith(self.box_parts))

    def bins_around(self, half_side: float, stride: int) -> Tensor:
        """Box biases (4R,) of a level whose sides shall start around `half_side` pixels."""
        if self.reg_max == 1:
            return torch.full((4,), math.log(math.expm1(max(half_side / stride, 0.5))))
        mean = min(max(half_side / stride, 0.5), max(self.reg_max - 2, 0.5))
        steps = torch.arange(self.reg_max, dtype=torch.float32)
        bell = -0.5 * ((steps - mean) / (0.5 + mean / 4)).square()
        return bell.clamp(min=-7).repeat(4)


class GFLHead(Head):
    """Anchor-free, decoupled: one branch gives R bins for each box side, the other C class-and-quality logits.

    `box_groups` are the groups of the box branch's last two convolutions.
    """

    box_groups = 1

    def __init__(self, nc: int, reg_max: int, channels: Sequence[int], dgqp: bool = False) -> None:
        super().__init__(nc, reg_max, channels, dgqp)
        box_width, cls_width = self.widths(nc, reg_max, channels[0])
        self.box = nn.ModuleList(_branch(c, box_width, 4 * reg_max, self.box_groups) for c in channels)
        self.cls = nn.ModuleList(_branch(c, cls_width, nc) for c in channels)

    @staticmethod
    def widths(nc: int, reg_max: int, channels: int) -> tuple[int, int]:
        """The widths of the box branch and of the class branch; `channels` are those of the first level."""
        return max(16, channels // 4, 4 * reg_max), max(channels, min(nc, 100))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [self.join(box(x), cls(x)) for x, box, cls in zip(features, self.box, self.cls, strict=True)]

    def class_rows(self) -> tuple[str, ...]:
        return tuple(f"cls.{i}.2.{kind}" for i in range(len(self.cls)) for kind in ("weight", "bias"))

    def predicting(self) -> list[Tensor]:
        return [branch[-1].weight for part in (self.box, self.cls) for branch in part]  # type: ignore[index]

    @torch.no_grad()
    def init_biases(self, prior: float = 0.01, half_side: float | None = None) -> None:
        for box, cls, stride in zip(self.box, self.cls, self.strides, strict=True):
            cls[-1].bias.fill_(_prior_bias(prior, self.quality))  # type: ignore[index]
            if half_side is not None:
                box[-1].bias.copy_(self.bins_around(half_side, stride))  # type: ignore[index]


class GroupedHead(GFLHead):
    """GFLHead as YOLOv9 has it: after its first convolution the box branch is four, one a side (groups of channels)."""

    box_groups = 4

    @staticmethod
    def widths(nc: int, reg_max: int, channels: int) -> tuple[int, int]:
        return max(-(-channels // 16) * 4, 4 * reg_max), max(channels, min(2 * nc, 128))


class PlainHead(Head):
    """1x1 convolutions alone: bins and class logits of a level are made from one and the same features.

    NanoDet's head without the convolutions that go before, which are rows of the YAML.
    """

    def __init__(self, nc: int, reg_max: int, channels: Sequence[int], dgqp: bool = False) -> None:
        super().__init__(nc, reg_max, channels, dgqp)
        self.box_out = nn.ModuleList(nn.Conv2d(c, 4 * reg_max, 1) for c in channels)
        self.cls_out = nn.ModuleList(nn.Conv2d(c, nc, 1) for c in channels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [self.join(box(x), cls(x)) for x, box, cls in zip(features, self.box_out, self.cls_out, strict=True)]

    def class_rows(self) -> tuple[str, ...]:
        return tuple(f"cls_out.{i}.{kind}" for i in range(len(self.cls_out)) for kind in ("weight", "bias"))

    def predicting(self) -> list[Tensor]:
        return [conv.weight for part in (self.box_out, self.cls_out) for conv in part]  # type: ignore[misc]

    @torch.no_grad()
    def init_biases(self, prior: float = 0.01, half_side: float | None = None) -> None:
        for box, cls, stride in zip(self.box_out, self.cls_out, self.strides, strict=True):
            cls.bias.fill_(_prior_bias(prior, self.quality))  # type: ignore[operator]
            if half_side is not None:
                box.bias.copy_(self.bins_around(half_side, stride))  # type: ignore[operator]


class SharedHead(Head):
    """Two subnets of four 3x3 convolutions, for boxes and for classes, that serve every level with the same weights.

    RetinaNet's subnets (Lin et al., ICCV 2017, section 4) with group norm, as in ATSS and GFL.  Departure: where these
    let each level scale the shared box output, here each level adds a bias, which can start at the data's box size.
    """

    def __init__(
        self, nc: int, reg_max: int, channels: Sequence[int], dgqp: bool = False, convolutions: int = 4
    ) -> None:
        super().__init__(nc, reg_max, channels, dgqp)
        width = channels[0]
        if set(channels) != {width} or width % GROUPS:
            raise ValueError(
                f"levels of {list(channels)} channels; expected one number for all, a multiple of {GROUPS}"
            )
        self.box = nn.Sequential(*(_grouped(width) for _ in range(convolutions)))
        self.cls = nn.Sequential(*(_grouped(width) for _ in range(convolutions)))
        self.box_out = nn.Conv2d(width, 4 * reg_max, 3, padding=1, bias=False)
        self.cls_out = nn.Conv2d(width, nc, 3, padding=1)
        self.level_bias = nn.Parameter(torch.zeros(len(channels), 4 * reg_max))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        maps = []
        for x, bias in zip(features, self.level_bias, strict=True):
            box = self.box_out(self.box(x)) + bias[:, None, None]
            maps.append(self.join(box, self.cls_out(self.cls(x))))
        return maps

    def class_rows(self) -> tuple[str, ...]:
        return ("cls_out.weight", "cls_out.bias")

    def predicting(self) -> list[Tensor]:
        return [self.box_out.weight, self.cls_out.weight, self.level_bias]

    @torch.no_grad()
    def init_biases(self, prior: float = 0.01, half_side: float | None = None) -> None:
        assert self.cls_out.bias is not None
        self.cls_out.bias.fill_(_prior_bias(prior, self.quality))
        if half_side is not None:
            for bias, stride in zip(self.level_bias, self.strides, strict=True):
                bias.copy_(self.bins_around(half_side, stride))


class EndToEnd(DetectionHead):
    """Two heads of one kind: many points answer for a truth in one, a single point in the other.

    Train mode: maps of both, as {"one2many": ..., "one2one": ...}; the one-to-one head sees detached features, so that
    the features are taught by the many (Wang et al., YOLOv10, NeurIPS 2024, section 3.1).  Eval mode: the maps of the
    one-to-one head alone, which is all that inference needs: its detections want no NMS.
    """

    end2end = True

    def __init__(self, one_to_many: Head, one_to_one: Head) -> None:
        super().__init__()
        self.one_to_many = one_to_many
        self.one_to_one = one_to_one

    @property
    def strides(self) -> tuple[int, ...]:
        return self.one_to_one.strides

    @strides.setter
    def strides(self, strides: tuple[int, ...]) -> None:
        self.one_to_many.strides = self.one_to_one.strides = strides

    def forward(self, features: Sequence[Tensor]) -> Any:
        if not self.training:
            return self.one_to_one(features)
        return {"one2many": self.one_to_many(features), "one2one": self.one_to_one([x.detach() for x in features])}

    def outputs(self, maps: Sequence[Tensor]) -> HeadMaps:
        return self.one_to_one.outputs(maps)

    def class_rows(self) -> tuple[str, ...]:
        return tuple(f"{name}.{row}" for name, head in self._heads() for row in head.class_rows())

    def box_names(self) -> tuple[str, ...]:
        return tuple(f"{name}.{box}" for name, head in self._heads() for box in head.box_names())

    def _heads(self) -> tuple[tuple[str, Head], ...]:
        return ("one_to_many", self.one_to_many), ("one_to_one", self.one_to_one)

    def predicting(self) -> list[Tensor]:
        return self.one_to_many.predicting() + self.one_to_one.predicting()

    def init_biases(self, prior: float = 0.01, half_side: float | None = None) -> None:
        self.one_to_many.init_biases(prior, half_side)
        self.one_to_one.init_biases(prior, half_side)


class QualityPredictor(nn.Module):
    """GFLv2's distribution-guided quality predictor: how sharp the four distributions are -> a logit of quality.

    Bins (B, 4R, H, W) -> (B, 1, H, W).  For each side the four largest probabilities and their mean, 20 numbers, go
    through 64 units; about 1,400 weights, shared by all levels (Li et al., GFLv2, CVPR 2021, section 3.2).
    """

    def __init__(self, reg_max: int) -> None:
        super().__init__()
        if reg_max < DGQP_TOP:
            raise ValueError(f"dgqp takes the {DGQP_TOP} largest of the bins; reg_max={reg_max} has fewer")
        self.reg_max = reg_max
        self.hidden = nn.Conv2d(4 * (DGQP_TOP + 1), 64, 1)
        self.out = nn.Conv2d(64, 1, 1)

    def forward(self, bins: Tensor) -> Tensor:
        top = bins.unflatten(1, (4, self.reg_max)).softmax(2).topk(DGQP_TOP, dim=2).values
        sharpness = torch.cat((top, top.mean(2, keepdim=True)), dim=2).flatten(1, 2)
        out: Tensor = self.out(self.hidden(sharpness).relu())
        return out


def joint_logit(cls: Tensor, quality: Tensor) -> Tensor:
    """The logit of sigmoid(cls) * sigmoid(quality), without leaving the logits: -log(e^-a + e^-b + e^-(a+b)).

    `cls` (B, C, H, W), `quality` (B, 1, H, W).  What follows (losses, assigner, decoding, export) sees one score.
    """
    a, b = -cls, -quality.expand_as(cls)
    return -_logaddexp(_logaddexp(a, b), a + b)


def _logaddexp(a: Tensor, b: Tensor) -> Tensor:
    """log(e^a + e^b), as torch.logaddexp, which ONNX lacks."""
    return torch.maximum(a, b) + F.softplus(-(a - b).abs())


GROUPS = 32  # of the group norm


def _prior_bias(prior: float, quality: QualityPredictor | None) -> float:
    """The class logit at which the score starts at `prior`; a quality of about one half, as it starts, halves it."""
    start = prior if quality is None else min(2 * prior, 0.99)
    return -math.log((1 - start) / start)


def _branch(c_in: int, width: int, c_out: int, groups: int = 1) -> nn.Sequential:
    """Two 3x3 convolutions and the 1x1 that predicts, the last two in `groups`."""
    return nn.Sequential(
        Conv(c_in, width, 3),
        Conv(width, width, 3, groups=groups),
        nn.Conv2d(width, c_out, 1, groups=groups),
    )


def _grouped(width: int) -> nn.Sequential:
    """A 3x3 convolution, group norm, ReLU."""
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, width), nn.ReLU())
