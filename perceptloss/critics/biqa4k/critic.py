"""BIQA for 4K content: quality, and whether the resolution is native, of the three most textured patches.

After Lu et al.: "Deep Neural Network for Blind Visual Quality Assessment of 4K Content", arXiv 2206.04363,
2022, of which neither code nor weights are public. From the paper: three patches chosen by grey-level
co-occurrence, features of several levels of a CNN, two heads, averages over the patches. Patch size, grey
levels, statistic, ranks, trunk and widths are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn

from perceptloss.card import Card, after_paper_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.critics.biqa4k.texture import STATISTICS, Statistic, cell_texture
from perceptloss.errors import ConfigError, InputError
from perceptloss.networks.functional import root
from perceptloss.networks.layers import draw
from perceptloss.networks.patches import per_image
from perceptloss.networks.trunks import Features, Trunk, TrunkCritic, TrunkName, features, resnet_rules, staged

__all__ = ["BIQA4K", "BIQA4KFR", "ENTRIES", "BIQA4KCritic", "crops"]

Pick = Literal["most", "spread"]
_SPREAD = (0.9, 0.5, 0.1)  # quantiles of texture, most first


def crops(image: Tensor, boxes: Tensor, side: int) -> Tensor:
    """Square patches of each image, image by image: (N * k, C, side, side).

    Args:
        image: (N, C, H, W).
        boxes: Top and left of the patches, (N, k, 2), inside the image.
        side: Of the patches.
    """
    along = torch.arange(side, device=image.device)
    rows, columns = (boxes[..., i, None] + along for i in (0, 1))
    number = torch.arange(len(image), device=image.device)[:, None, None, None]
    patches = rearrange(image, "n c h w -> n h w c")[number, rows[..., :, None], columns[..., None, :]]
    return rearrange(patches, "n k h w c -> (n k) c h w")


class BIQA4KCritic(Critic):
    """The network of both modes, and how it chooses what to look at; they have the same state dict.

    Per patch: mean and deviation of the four stages of ResNet-50, each stage to `width` numbers, all
    joined; one head for the quality, one for native against upscaled. An image has the mean of its patches.

    Args:
        card: What it is; `side` becomes its `min_size`.
        side: Of the patches, which are cells of a grid without overlap.
        patches: Of an image, fewer only where the grid has fewer cells.
        levels: Grey levels of the texture.
        statistic: Measure of the texture, one of `perceptloss.critics.biqa4k.texture.STATISTICS`.
        pick: `most`: the most textured cells; `spread`: those at 90, 50 and 10 percent of all cells.
        trunk: `resnet` or `lite0-smooth`.
        widths: Of the four stages of the trunk (a quarter of the channels that leave them).
        width: Numbers of a stage.
        hidden: Units of each head.
    """

    trunk: Trunk
    taps: tuple[str, ...] = ("layer1", "layer2", "layer3", "layer4")
    rules = resnet_rules()
    unused = (r"native\..+",)

    def __init__(
        self,
        card: Card,
        *,
        side: int = 256,
        patches: int = 3,
        levels: int = 16,
        statistic: Statistic = "contrast",
        pick: Pick = "most",
        trunk: TrunkName = "resnet",
        widths: Sequence[int] = (64, 128, 256, 512),
        width: int = 128,
        hidden: int = 128,
    ) -> None:
        super().__init__(replace(card, min_size=side))
        problems = [f"unknown statistic {statistic!r}; known: {', '.join(STATISTICS)}"] * (statistic not in STATISTICS)
        problems += [f"pick must be 'most' or 'spread', got {pick!r}"] * (pick not in ("most", "spread"))
        problems += [f"'spread' picks {len(_SPREAD)} patches, got {patches}"] * (pick == "spread" and patches != 3)
        if problems:
            raise ConfigError(problems, card.name)
        self.side, self.patches, self.levels, self.statistic, self.pick = side, patches, levels, statistic, pick
        self.trunk, self.taps, channels = staged(trunk, 50, widths)
        self.project = nn.ModuleList(nn.Linear(2 * c, width) for c in channels)
        joined = width * len(channels)
        self.quality = nn.Sequential(nn.Linear(joined, hidden), nn.GELU(), nn.Linear(hidden, 1))
        self.native = nn.Sequential(nn.Linear(joined, hidden), nn.GELU(), nn.Linear(hidden, 2))
        draw(self.project, self.quality, self.native, slope=None)

    @torch.no_grad()
    def select(self, image: Tensor, offset: tuple[int, int] = (0, 0)) -> Tensor:
        """The patches to look at, from the most textured on, equal ones row by row; no gradient leads through.

        Args:
            image: RGB in [0, 1], (N, 3, H, W). Of a pair, take the reference, so that no restorer can
                move the choice.
            offset: Row and column at which the grid starts, which training may vary.

        Returns:
            Top and left of the patches, (N, k, 2).

        Raises:
            InputError: if no cell fits.
        """
        if min(length - start for length, start in zip(image.shape[-2:], offset, strict=True)) < self.side:
            size = "x".join(map(str, image.shape[-2:]))
            raise InputError(f"no {self.side}x{self.side} cell fits into {size} from {offset} on.")
        texture, corners = cell_texture(image, self.side, levels=self.levels, statistic=self.statistic, offset=offset)
        order = texture.argsort(dim=1, descending=True, stable=True)
        count = texture.shape[1]
        if self.pick == "spread" and count > self.patches:
            order = order[:, [round((1 - share) * (count - 1)) for share in _SPREAD]]
        return corners[order[:, : self.patches]]

    def vectors(self, taps: Features) -> Tensor:
        """What the heads read of every patch, (patches, 4 * width), from its taps."""
        joined = []
        for tap, project in zip(self.taps, self.project, strict=True):
            mean = taps[tap].mean((2, 3), keepdim=True)
            deviation = root((taps[tap] - mean).square().mean((2, 3)))
            joined.append(project(torch.cat([mean.flatten(1), deviation], 1)))
        return torch.cat(joined, 1)

    def _vectors_at(self, x: Tensor, boxes: Tensor) -> Tensor:
        patches = crops(x, boxes, self.side)
        return self.vectors(features(self.trunk, patches, self.taps, getattr(self, "precision", "fp32")))

    def score_at(self, x: Tensor, boxes: Tensor) -> Tensor:
        """Mean quality of given patches, (N,), higher is better.

        Args:
            x: Judged images, (N, 3, H, W).
            boxes: From `select`, (N, k, 2).
        """
        return per_image(self.quality(self._vectors_at(x, boxes)).squeeze(1), len(x)).mean(1)

    def native_logit(self, x: Tensor, boxes: Tensor | None = None) -> Tensor:
        """Mean log odds over the patches that the resolution is native and not upscaled, (N,).

        `torch.sigmoid` of it is the probability; `F.softplus(-logit)` is the loss of a restorer that
        wants to pass for native, with a slope however sure the critic is.

        Args:
            x: Judged images, RGB in [0, 1], (N, 3, H, W).
            boxes: From `select`, (N, k, 2); by default chosen in `x` itself.
        """
        self.refreeze()
        x, _ = self.admit(x, x if self.card.needs_reference else None)
        with torch.autocast(x.device.type, enabled=False):
            return self.logit_of(self._vectors_at(x, self.select(x) if boxes is None else boxes), len(x))

    def logit_of(self, vectors: Tensor, images: int) -> Tensor:
        """`native_logit` of so many images, (N,), from the vectors of all their patches."""
        upscaled, native = self.native(vectors).unbind(1)
        return per_image(native - upscaled, images).mean(1)


class BIQA4K(BIQA4KCritic, TrunkCritic):
    """After BIQA for 4K content; architecture partly ours. Unbounded quality, higher is better, of three patches.

    Patches are chosen in the judged image; in a loss with references in those, and both are seen at the same places,
    which no restorer can move. See `BIQA4KCritic`.

    Example:
        >>> critic = create_critic("biqa4k", weights=None)
        >>> x = torch.rand(1, 3, 512, 512, requires_grad=True)
        >>> (critic(x) + critic.native_logit(x)).sum().backward()
    """

    is_shown_references = True

    def prepare(self, image: Tensor) -> Tensor:
        return crops(image, self.select(image), self.side)

    def prepare_both(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        boxes = self.select(x if y is None else y)
        return crops(x, boxes, self.side), None if y is None else crops(y, boxes, self.side)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return per_image(self.quality(self.vectors(fx)).squeeze(1), len(x)).mean(1)


class BIQA4KFR(BIQA4KCritic):
    """After BIQA for 4K content; architecture partly ours: `BIQA4K` of the patches that the reference shows.

    Judged image and reference are seen at the same places, which no restorer can move. Equal images have
    equal scores, so that a relative loss is 0 there.

    Example:
        >>> critic = create_critic("biqa4k-fr", weights=None)
        >>> x = torch.rand(1, 3, 512, 512, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 512, 512)).sum().backward()
    """

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.score_at(x, self.select(given(y)))


_CARD = after_paper_card(
    name="biqa4k",
    summary="Quality of the three most textured patches of a large image, and whether its resolution is native.",
    kind="nr",
    domains=frozenset({"4k", "natural"}),
    min_size=256,
    tiling="inside",
    weights=("resnet50", "biqa4k"),
    paper="Lu et al., Deep Neural Network for Blind Visual Quality Assessment of 4K Content, arXiv 2206.04363, 2022",
    source="no code published",
    notes=(
        "not a reproduction: patch size, grey levels, statistic, trunk and widths are our choice",
        "biqa4k and biqa4k-fr are one network: the same checkpoint loads in both",
        "three 256x256 patches are 2.4 % of a 4K image: report how scores vary with the choice",
        "sees textured patches only: blind to banding and noise in flat areas",
        "critic.native_logit(x) tells native from upscaled, with labels that cost nothing; vary the upscaling kernels "
        "in training, or it learns their spectra",
        "the choice of patches is no part of the gradient, and pixels outside them get none",
    ),
)
_FR_CARD = replace(
    _CARD,
    name="biqa4k-fr",
    summary="Quality of an image at the three most textured patches of its reference; one network with biqa4k.",
    kind="fr",
    low_precision=False,
    notes=(*_CARD.notes, "the reference decides where to look and is not otherwise compared with"),
)

ENTRIES = {"biqa4k": Entry(_CARD, BIQA4K), "biqa4k-fr": Entry(_FR_CARD, BIQA4KFR)}
