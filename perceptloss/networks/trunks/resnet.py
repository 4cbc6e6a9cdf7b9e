"""Residual trunks with stored batch statistics, state-dict compatible with torchvision (and timm).

He et al., Deep Residual Learning for Image Recognition, CVPR 2016, with the stride in the 3x3
convolution of a bottleneck, as torchvision has it. Normalisations are folded into the
convolutions, so that no step of them is computed or kept.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from perceptloss.networks.batchnorm import COUNTER, BatchStats
from perceptloss.networks.lean import add_relu, conv, max_pool
from perceptloss.networks.trunks.trunk import IMAGENET, Keep, Normalisation, Trunk
from perceptloss.weights.rules import Rule

__all__ = ["ResNet", "resnet_children_rules", "resnet_rules"]

_DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
_WIDTHS = (64, 128, 256, 512)


class _Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1, with a shortcut."""

    def __init__(self, channels: int, width: int, stride: int, *, bottleneck: bool) -> None:
        super().__init__()
        out = width * 4 if bottleneck else width
        plan: tuple[tuple[int, int, int, int], ...]
        if bottleneck:
            plan = ((channels, width, 1, 1), (width, width, 3, stride), (width, out, 1, 1))
        else:
            plan = ((channels, width, 3, stride), (width, width, 3, 1))
        self.depth = len(plan)
        for number, (wide, narrow, kernel, step) in enumerate(plan, 1):
            self.add_module(f"conv{number}", nn.Conv2d(wide, narrow, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{number}", BatchStats(narrow))
        self.downsample: nn.Sequential | None = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), BatchStats(out))

    def forward(self, h: Tensor, theta: float = 0.0, *, lean: bool = False) -> Tensor:
        shortcut = h
        if self.downsample is not None:
            shortcut = conv(h, self.downsample[0], self.downsample[1], lean=lean)
        for number in range(1, self.depth + 1):
            layer, norm = getattr(self, f"conv{number}"), getattr(self, f"bn{number}")
            h = conv(h, layer, norm, relu=number < self.depth, lean=lean, theta=theta)
        return add_relu(h, shortcut, lean=lean)


class ResNet(Trunk):
    """ResNet-18, -34 or -50 up to a stage, 11.2, 21.3 and 23.5 M parameters with all four; see `Trunk`.

    Taps: `stem` (before the pooling), `layer1.0`, `layer1.1`, ... per block, and `layer1` ... `layer4`,
    the last block of a stage. Strides 2, then 4, 8, 16, 32.

    Args:
        depth: 18, 34 or 50.
        stages: Number of stages to build, 1 to 4.
        normalise: See `Trunk`.
        theta: Share of the central difference in the 3x3 convolutions of each stage
            (see `perceptloss.networks.lean.central_difference`).
        widths: Channels of the stages; bottlenecks put out four times as many.
        channels: Of the images; other than three come without normalisation.
    """

    def __init__(
        self,
        depth: int,
        stages: int = 4,
        normalise: Normalisation | None = IMAGENET,
        theta: tuple[float, ...] = (0.0, 0.0, 0.0, 0.0),
        widths: Sequence[int] = _WIDTHS,
        channels: int = 3,
    ) -> None:
        if channels != 3 and normalise is not None:
            raise ValueError(f"normalise is for RGB: give normalise=None with channels={channels}")
        taps, position = {"stem": 0}, 1
        for stage, blocks in enumerate(_DEPTHS[depth][:stages], 1):
            for block in range(blocks):
                position += 1
                taps[f"layer{stage}.{block}"] = position
            taps[f"layer{stage}"] = position
        super().__init__(f"resnet{depth}-{stages}-{tuple(widths)}-{channels}", taps, normalise)
        self.theta = theta
        self.conv1 = nn.Conv2d(channels, widths[0], 7, 2, 3, bias=False)
        self.bn1 = BatchStats(widths[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        wide, self.blocks_of = widths[0], _DEPTHS[depth][:stages]
        for stage, blocks in enumerate(self.blocks_of):
            built = []
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                built.append(_Block(wide, widths[stage], stride, bottleneck=depth >= 50))
                wide = widths[stage] * (4 if depth >= 50 else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*built))
        self.finish()

    def finish(self) -> None:
        """As in `Trunk`; the last normalisation of a block starts small, so that random features stay of one size."""
        super().finish()
        for module in self.modules():
            if isinstance(module, _Block):
                nn.init.constant_(getattr(module, f"bn{module.depth}").weight, 0.25)

    def _blocks(self) -> list[tuple[_Block, float]]:
        stages = zip(range(1, len(self.blocks_of) + 1), self.theta, strict=False)
        return [(block, theta) for stage, theta in stages for block in getattr(self, f"layer{stage}")]

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        return [(self.conv1, self.bn1), (), *((block,) for block, _ in self._blocks())]

    def same_as(self, other: Trunk) -> bool:
        return isinstance(other, ResNet) and self.theta == other.theta and super().same_as(other)

    def step(self, h: Tensor, position: int, keep: Keep) -> Tensor:
        lean = keep == "lean"
        if position == 0:
            return conv(h, self.conv1, self.bn1, relu=True, lean=lean)
        if position == 1:
            return max_pool(h, self.maxpool, lean=lean)
        block, theta = self._blocks()[position - 2]
        return block(h, theta, lean=lean)


def resnet_rules(prefix: str = "", stages: int = 4, target: str = "trunk") -> tuple[Rule, ...]:
    r"""How torchvision's and timm's ResNet files are read into the child `target`.

    Args:
        prefix: Regular expression of what a checkpoint puts before the names, such as `resnet50\.`.
        stages: Number of stages that the trunk has; later ones are left out.
        target: Name of the trunk in the critic.
    """
    layers = f"conv1|bn1|layer[1-{stages}]"
    rules = [
        Rule(prefix + r".*num_batches_tracked", None, COUNTER),
        Rule(prefix + rf"((?:{layers})\..+)", rf"{target}.\1"),
        Rule(prefix + r"fc\..+", None, "the classifier behind the features is not used"),
    ]
    if stages < 4:
        rules.append(Rule(prefix + rf"layer[{stages + 1}-4]\..+", None, "stages behind the last tap are not used"))
    return tuple(rules)


def resnet_children_rules(prefix: str = "", target: str = "trunk") -> tuple[Rule, ...]:
    """How files of a ResNet that was kept as a row of its children, without names, are read; arguments as above."""
    stages = [Rule(prefix + rf"{stage + 3}\.(.+)", rf"{target}.layer{stage}.\1") for stage in range(1, 5)]
    stem = [Rule(prefix + rf"{n}\.(.+)", rf"{target}.{name}.\1") for n, name in enumerate(("conv1", "bn1"))]
    return Rule(prefix + r".*num_batches_tracked", None, COUNTER), *stem, *stages
