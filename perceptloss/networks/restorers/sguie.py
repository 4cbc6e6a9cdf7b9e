"""SGUIE-Net: underwater enhancement at the size of the input, guided by regions of a semantic map.

Qi et al.: "SGUIE-Net: Semantic Attention Guided Underwater Image Enhancement With Multi-Scale Perception", IEEE TIP 31,
2022; trentqq/SGUIE-Net_Simple (MIT), commit ef9ff998, written from its description. Names in the state dict are the
authors'. Theirs leaves the axis of a softmax open, which PyTorch took for the channels; so here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.errors import InputError

__all__ = ["SMALLEST_REGION", "Enhanced", "Region", "SGUIENet", "regions_of", "sguie_loss"]

SMALLEST_REGION = 32
"""Pixels; regions whose box is narrower or lower are left out."""


@dataclass(frozen=True)
class Region:
    """The bounding box of a class in one image: class number, then left, top, width and height in pixels."""

    number: int
    left: int
    top: int
    width: int
    height: int

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


@dataclass(frozen=True)
class Enhanced:
    """What the network makes of one batch.

    Attributes:
        image: (N, 3, H, W), in [0, 1].
        regions: Of each image, its regions in the order of classes.
        region_images: Of each image, what the region branch makes of each alone, (1, 3, h, w); may leave [0, 1].
    """

    image: Tensor
    regions: Sequence[Sequence[Region]]
    region_images: Sequence[Sequence[Tensor]]


def regions_of(semantics: Tensor, smallest: int = SMALLEST_REGION) -> list[Region]:
    """Bounding boxes of the classes of one image, of those at least so wide and high.

    Args:
        semantics: Where each class is, (classes, H, W), boolean or 0 and not 0.
        smallest: Least width and height, pixels.
    """
    found = []
    for number, mask in enumerate(semantics != 0):
        rows, columns = mask.any(1).nonzero().flatten().tolist(), mask.any(0).nonzero().flatten().tolist()
        if rows and min(rows[-1] - rows[0], columns[-1] - columns[0]) + 1 >= smallest:
            found.append(Region(number, columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1))
    return found


class SGUIENet(nn.Module):
    """Enhances RGB images in [0, 1] of any size; the output is in [0, 1].

    Without a semantic map the region branch rests. In training its batch normalisation sees one region at a time;
    call `eval()` for stored statistics (the authors' test script does not, unless told to).

    Args:
        width: Channels.
        groups: Of attention blocks in the main branch.
        blocks: In a group.
    """

    rests = True  # the region branch has no gradient where there are no regions, nor its picture if no loss sees it

    def __init__(self, width: int = 64, groups: int = 3, blocks: int = 4) -> None:
        super().__init__()
        self.conv1 = _conv(3, width, bias=False)
        self.fab = _AttentionBlock(width)
        self.orb = nn.ModuleList(_Group(width, blocks) for _ in range(groups))
        self.fa = _RegionBranch(width)
        self.ff_conv1, self.ff_conv2 = (_conv(width, width, bias=False) for _ in range(2))  # in files, never used
        for unused in (self.ff_conv1, self.ff_conv2):
            unused.requires_grad_(False)
        self.ff_conv3 = _DoubleConv(width, width)
        self.conv2 = _conv(width, 3, bias=False)

    def forward(self, x: Tensor, semantics: Tensor | None = None) -> Tensor:
        """Enhance.

        Args:
            x: (N, 3, H, W), RGB in [0, 1].
            semantics: Where each class is, (N, classes, H, W), boolean or 0 and not 0; classes may overlap.

        Returns:
            (N, 3, H, W), in [0, 1].

        Raises:
            InputError: for other shapes.
        """
        return self.enhance(x, semantics).image

    def enhance(self, x: Tensor, semantics: Tensor | None = None) -> Enhanced:
        """As `forward`, and with what the region branch made, which the authors' training looks at, too."""
        if x.ndim != 4 or x.shape[1] != 3:
            raise InputError(f"SGUIENet needs RGB images, (N, 3, H, W), got {tuple(x.shape)}.")
        if semantics is not None and (semantics.ndim != 4 or semantics.shape[::2] + semantics.shape[3:] != _size(x)):
            raise InputError(
                f"SGUIENet needs a plane for each class, (N, classes, H, W) of x {tuple(x.shape)}, got "
                f"{tuple(semantics.shape)}."
            )
        raw = 2 * x - 1
        features = self.fab(self.conv1(raw))
        ones = [slice(i, i + 1) for i in range(len(x))]
        seen = [self.guided(raw[one], features[one], None if semantics is None else semantics[one][0]) for one in ones]
        guided = torch.cat([each[0] for each in seen]) if seen else features
        out = torch.tanh(self.conv2(self.trunk(guided)) + raw)
        return Enhanced((out + 1) / 2, [each[1] for each in seen], [each[2] for each in seen])

    def trunk(self, features: Tensor) -> Tensor:
        """The groups of the main branch, (N, width, H, W) to the same."""
        for group in self.orb:
            features = group(features)
        return features

    def fusion_weights(self, features: Tensor) -> Tensor:
        """By how much features of a region count, of those of the region branch: positive, 1 over the channels."""
        return self.ff_conv3(features).softmax(1)

    def guided(
        self, raw: Tensor, features: Tensor, semantics: Tensor | None
    ) -> tuple[Tensor, list[Region], list[Tensor]]:
        """Features of one image after its regions, one after the other, those regions, and what they look like alone.

        Args:
            raw: The image in [-1, 1], (1, 3, H, W).
            features: (1, width, H, W).
            semantics: (classes, H, W), or None for no regions.
        """
        pictures: list[Tensor] = []
        if semantics is None:
            return features, [], pictures
        regions = regions_of(semantics)
        for region in regions:
            rows, columns = region.box
            picture, seen = self.fa(raw[..., rows, columns])
            weights = self.fusion_weights(seen) * (semantics[region.number][rows, columns] != 0)
            inside = features[..., rows, columns]
            features = features.clone()
            features[..., rows, columns] = inside + inside * weights
            pictures.append((picture + 1) / 2)
        return features, regions, pictures


def sguie_loss(made: Enhanced, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The authors' loss of one image: ten times the squared error in [-1, 1], of it all and of each region alone.

    Args:
        made: Of one image.
        y: Its reference, (1, 3, H, W), in [0, 1].

    Returns:
        Their sum, that of the whole image, and those of the regions, (R,).
    """
    whole = _squared(made.image, y)
    apart = [
        _squared(picture, y[..., region.box[0], region.box[1]])
        for region, picture in zip(made.regions[0], made.region_images[0], strict=True)
    ]
    each = torch.stack(apart) if apart else y.new_zeros(0)
    return whole + each.sum(), whole, each


def _squared(x: Tensor, y: Tensor) -> Tensor:
    return 10 * F.mse_loss(2 * x, 2 * y)


def _size(x: Tensor) -> torch.Size:
    return x.shape[::2] + x.shape[3:]


def _conv(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)


class _ChannelAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_du = nn.Sequential(
            nn.Conv2d(width, width // 8, 1), nn.ReLU(), nn.Conv2d(width // 8, width, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_du(x.mean((2, 3), keepdim=True))


class _PixelAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.pa = nn.Sequential(nn.Conv2d(width, width // 8, 1), nn.ReLU(), nn.Conv2d(width // 8, 1, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.pa(x)


class _AttentionBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _conv(width, width), _conv(width, width)
        self.calayer, self.palayer = _ChannelAttention(width), _PixelAttention(width)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.conv1(x)) + x
        return self.palayer(self.calayer(self.conv2(h))) + x


class _Group(nn.Module):
    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.gp = nn.Sequential(*(_AttentionBlock(width) for _ in range(blocks)), _conv(width, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.gp(x) + x


class _RegionBranch(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = _conv(3, width, bias=False)
        self.fab, self.unet = _AttentionBlock(width), _UNet(width)
        self.conv2 = _conv(width, 3, bias=False)

    def forward(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """An image in [-1, 1], (1, 3, H, W), as an enhanced one, which may leave that range, and features."""
        seen = torch.tanh(self.unet(self.fab(self.conv1(raw))))
        return self.conv2(seen) + raw, seen


class _DoubleConv(nn.Module):
    def __init__(self, inputs: int, outputs: int, middle: int | None = None) -> None:
        super().__init__()
        middle = middle or outputs
        self.double_conv = nn.Sequential(
            *(_conv(inputs, middle), nn.BatchNorm2d(middle), nn.ReLU()),
            *(_conv(middle, outputs), nn.BatchNorm2d(outputs), nn.ReLU()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class _Down(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), _DoubleConv(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return self.maxpool_conv(x)


class _Up(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = _DoubleConv(inputs, outputs, inputs // 2)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        down, across = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
        x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return self.conv(torch.cat([skip, x], 1))


class _UNet(nn.Module):
    def __init__(self, w: int) -> None:
        super().__init__()
        self.inc = _DoubleConv(w, w)
        self.down1, self.down2 = _Down(w, 2 * w), _Down(2 * w, 4 * w)
        self.down3, self.down4 = _Down(4 * w, 8 * w), _Down(8 * w, 8 * w)
        self.up1, self.up2 = _Up(16 * w, 4 * w), _Up(8 * w, 2 * w)
        self.up3, self.up4 = _Up(4 * w, w), _Up(2 * w, w)
        self.outc = nn.Sequential(OrderedDict(conv=nn.Conv2d(w, w, 1)))

    def forward(self, x: Tensor) -> Tensor:
        seen = [self.inc(x)]
        for down in (self.down1, self.down2, self.down3, self.down4):
            seen.append(down(seen[-1]))
        h = seen.pop()
        for up in (self.up1, self.up2, self.up3, self.up4):
            h = up(h, seen.pop())
        return self.outc(h)
