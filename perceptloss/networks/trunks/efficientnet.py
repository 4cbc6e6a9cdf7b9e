"""EfficientNet-B0 with stored batch statistics, up to its head convolution.

Tan, Le: "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019.
Epsilon of the normalisations, 1e-3, and names in files are those of the package efficientnet_pytorch 0.7,
which pads by half a kernel on every side. (TensorFlow, where its ImageNet weights come from, pads one
pixel less above and on the left of strided convolutions.) Normalisations are folded into the convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.networks.batchnorm import COUNTER, BatchStats
from perceptloss.networks.lean import conv
from perceptloss.networks.trunks.trunk import IMAGENET, Keep, Normalisation, Trunk
from perceptloss.weights.rules import Rule

__all__ = ["EfficientNet", "efficientnet_rules"]

_EPS = 1e-3
# of every stage: how many times wider its blocks are inside, blocks, side of the kernel, stride of the first block
_STAGES = ((1, 1, 3, 1), (6, 2, 3, 2), (6, 2, 5, 2), (6, 3, 3, 2), (6, 3, 5, 1), (6, 4, 5, 2), (6, 1, 3, 1))
_WIDTHS = (16, 24, 40, 80, 112, 192, 320)
_NAMES = {
    "_expand_conv": "expand",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_norm",
    "_se_reduce": "squeeze",
    "_se_expand": "excite",
    "_project_conv": "project",
    "_bn2": "project_norm",
}


def _conv(channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=False)


class _Block(nn.Module):
    """Widen, convolve every channel alone, weigh channels by their means, narrow; plus the input where it fits."""

    expand: nn.Conv2d | None

    def __init__(self, channels: int, out: int, ratio: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide, few = channels * ratio, max(1, channels // 4)
        self.is_residual = stride == 1 and channels == out
        self.expand = None
        if ratio > 1:
            self.expand, self.expand_norm = _conv(channels, wide), BatchStats(wide, _EPS)
        self.depthwise, self.depthwise_norm = _conv(wide, wide, kernel, stride, wide), BatchStats(wide, _EPS)
        self.squeeze, self.excite = nn.Conv2d(wide, few, 1), nn.Conv2d(few, wide, 1)
        self.project, self.project_norm = _conv(wide, out), BatchStats(out, _EPS)

    def forward(self, h: Tensor, *, lean: bool = False) -> Tensor:
        shortcut = h
        if self.expand is not None:
            h = F.silu(conv(h, self.expand, self.expand_norm, lean=lean))
        h = F.silu(conv(h, self.depthwise, self.depthwise_norm, lean=lean))
        means = h.mean((2, 3), keepdim=True)
        h = h * conv(F.silu(conv(means, self.squeeze)), self.excite).sigmoid()
        h = conv(h, self.project, self.project_norm, lean=lean)
        return h + shortcut if self.is_residual else h


class EfficientNet(Trunk):
    """EfficientNet-B0; see `Trunk`. 4.0 M parameters.

    Taps: `stem`, stride 2; `block0` ... `block15`, 16 to 320 channels at strides 2, then 4 from `block1`,
    8 from `block3`, 16 from `block5` and 32 from `block11`; `head`, 1280 channels at stride 32.

    Args:
        normalise: See `Trunk`.
        stem: Channels of the stem.
        widths: Channels of the seven stages.
        head: Channels of the head convolution.
    """

    def __init__(
        self,
        normalise: Normalisation | None = IMAGENET,
        *,
        stem: int = 32,
        widths: Sequence[int] = _WIDTHS,
        head: int = 1280,
    ) -> None:
        count = sum(repeats for _, repeats, _, _ in _STAGES)
        taps = {"stem": 0} | {f"block{k}": k + 1 for k in range(count)} | {"head": count + 1}
        super().__init__(f"efficientnet_b0-{stem}-{tuple(widths)}-{head}", taps, normalise)
        self.stem, self.stem_norm = _conv(3, stem, 3, 2), BatchStats(stem, _EPS)
        self.blocks = nn.ModuleList()
        channels = stem
        for width, (ratio, repeats, kernel, stride) in zip(widths, _STAGES, strict=True):
            for place in range(repeats):
                self.blocks.append(_Block(channels, width, ratio, kernel, 1 if place else stride))
                channels = width
        self.head, self.head_norm = _conv(channels, head), BatchStats(head, _EPS)
        self.finish()

    def finish(self) -> None:
        """As in `Trunk`; blocks make up for what their gates take, so that random features stay of one size."""
        super().finish()
        for block in self.blocks:
            nn.init.constant_(block.get_submodule("project_norm").get_parameter("weight"), 1.4)

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        return [(self.stem, self.stem_norm), *((block,) for block in self.blocks), (self.head, self.head_norm)]

    def step(self, h: Tensor, position: int, keep: Keep) -> Tensor:
        lean = keep == "lean"
        if position == 0:
            return F.silu(conv(h, self.stem, self.stem_norm, lean=lean))
        if position <= len(self.blocks):
            return self.blocks[position - 1](h, lean=lean)
        return F.silu(conv(h, self.head, self.head_norm, lean=lean))


def efficientnet_rules(prefix: str = "", target: str = "trunk") -> tuple[Rule, ...]:
    """How files of the package efficientnet_pytorch are read into the child `target`.

    Args:
        prefix: Regular expression of what a checkpoint puts before the names.
        target: Name of the trunk in the critic.
    """
    outer = {"_conv_stem": "stem", "_bn0": "stem_norm", "_conv_head": "head", "_bn1": "head_norm"}
    return (
        Rule(prefix + r"_.*num_batches_tracked", None, COUNTER),
        *(Rule(prefix + rf"{theirs}\.(.+)", rf"{target}.{ours}.\1") for theirs, ours in outer.items()),
        *(
            Rule(prefix + rf"_blocks\.(\d+)\.{theirs}\.(.+)", rf"{target}.blocks.\1.{ours}.\2")
            for theirs, ours in _NAMES.items()
        ),
        Rule(prefix + r"_fc\..+", None, "the classifier behind the features is not used"),
    )
