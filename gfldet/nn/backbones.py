"""Feature extractors of torchvision as rows of a model YAML: a ResNet with a feature pyramid, and how images go in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gfldet.nn.blocks import Layer, Row

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Normalise(nn.Module):
    """Images (B, 3, H, W), RGB in [0, 1] -> the same with ImageNet's mean and deviation taken out.

    Not in the filters of the convolution after it, which pads with zeros: these are ImageNet's mean here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None], persistent=False)

    @classmethod
    def from_row(cls, row: Row) -> Layer:
        return Layer(cls(*row.args), row.channels[0])

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class ResNetFPN(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> [P3, P4, P5, P6, P7], each (B, width, H / s, W / s), s = 8 to 128, rounded up.

    torchvision's ResNet without its classifier, and its feature pyramid on C3 to C5 with P6 and P7 by strided
    convolutions of P5 (as in FCOS, ATSS and GFL).  Images are normalised as ImageNet's are, so that public weights fit;
    fresh ones do not mind.  Sides must be multiples of 32.
    """

    multiple = 32

    def __init__(self, name: str = "resnet50", width: int = 256) -> None:
        super().__init__()
        if name not in RESNETS:
            raise ValueError(f"backbone {name!r}; there are {', '.join(RESNETS)}")
        from torchvision import models, ops  # here, because torchvision takes seconds to import

        self.name = name
        self.body = getattr(models, name)(weights=None)
        channels = [int(self.body.fc.in_features) // share for share in (4, 2, 1)]
        del self.body.fc, self.body.avgpool
        top = ops.feature_pyramid_network.LastLevelP6P7(width, width)
        self.fpn = ops.FeaturePyramidNetwork(channels, width, extra_blocks=top)
        self.normalise = Normalise()

    @classmethod
    def from_row(cls, row: Row) -> Layer:
        module = cls(*row.args)
        width = row.args[1] if len(row.args) > 1 else 256
        return Layer(module, (width,) * 5)

    def forward(self, x: Tensor) -> list[Tensor]:
        body = self.body
        x = body.layer1(body.maxpool(body.relu(body.bn1(body.conv1(self.normalise(x))))))
        maps = {}
        for number, layer in enumerate((body.layer2, body.layer3, body.layer4), start=3):
            x = layer(x)
            maps[f"c{number}"] = x
        return list(self.fpn(maps).values())

    def fuse(self) -> None:
        """Fold every batch norm of the ResNet into the convolution before it; for inference only."""
        for module in list(self.body.modules()):
            children = dict(module.named_children())
            for conv, norm in (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"), ("0", "1")):
                before, after = children.get(conv), children.get(norm)
                if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                    setattr(module, conv, nn.utils.fusion.fuse_conv_bn_eval(before.eval(), after.eval()))
                    setattr(module, norm, nn.Identity())
