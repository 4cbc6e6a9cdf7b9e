"""CenseoQoE: one global feature of a ResNet-18 and two layers, for images and video, without a reference or with one.

Wen, Wang: "A Strong Baseline for Image and Video Quality Assessment", arXiv 2111.07104, 2021. Original:
https://github.com/Tencent/CenseoQoE (commit aeaf40b, MIT). Ours: images are never resized, and a
critic with a reference can start from the weights of one without (`start_from`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from einops import reduce
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Critic, Entry, given
from perceptloss.errors import InputError
from perceptloss.networks.layers import draw
from perceptloss.networks.trunks import Features, ResNet, TrunkCritic, resnet_rules
from perceptloss.weights.convert import load_states
from perceptloss.weights.rules import Rule

__all__ = ["ENTRIES", "CenseoQoE", "CenseoQoEFR", "CenseoQoENR"]

_SCALE = 5.0  # labels are opinions over 5


class CenseoQoE(Critic):
    """What `CenseoQoENR` and `CenseoQoEFR` share: trunk, head, its sigmoid, and clips.

    Images go into the trunk as the authors' code reads them: BGR, raw [0, 1], without mean and deviation.

    Args:
        card: What it is.
        depth: Of the ResNet: 18 as published, or 34 or 50.
        sigmoid: Whether the head ends in one. Without, the score is unbounded.
        widths: Of the four stages of the trunk.
        hidden: Units of the head.
    """

    channels: int = 3
    """Of what the trunk is fed."""
    taps: tuple[str, ...] = ("layer4",)
    rules = (*resnet_rules(r"backbone\."), Rule(r"head\.fc_out\.(.+)", r"head.\1"))

    def __init__(
        self,
        card: Card,
        *,
        depth: int = 18,
        sigmoid: bool = True,
        widths: Sequence[int] = (64, 128, 256, 512),
        hidden: int = 1024,
    ) -> None:
        super().__init__(card if sigmoid else replace(card, bounds=(-math.inf, math.inf)))
        self.sigmoid = sigmoid
        self.trunk = ResNet(depth, normalise=None, widths=widths, channels=self.channels)
        features = widths[-1] * (4 if depth >= 50 else 1)
        first, last = nn.Linear(features, hidden), nn.Linear(hidden, 1)
        draw(first)
        nn.init.normal_(last.weight, std=1 / math.sqrt(hidden))
        nn.init.zeros_(last.bias)
        self.head = nn.Sequential(first, nn.ReLU(), last)

    def read_maps(self, maps: Tensor) -> Tensor:
        """Logits (N,) of the last maps of the trunk, (N, C, h, w)."""
        logits: Tensor = self.head(maps.mean((2, 3)))
        return logits[:, 0]

    def squash(self, linear: Tensor) -> Tensor:
        return _SCALE * (linear.sigmoid() if self.sigmoid else linear)

    def score_clip(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Scores of clips, (N,): the means of their frames' scores. As a loss, give the frames as a batch.

        Args:
            x: Judged clips of T frames, RGB in [0, 1], (N, T, 3, H, W). The authors take 16 or 32 frames.
            y: Reference clips, same shape, for the critic that needs them.

        Raises:
            InputError: if the shapes do not fit, or a frame is not what the card says.
        """
        if x.ndim != 5 or 0 in x.shape[:2] or (y is not None and y.shape != x.shape):
            given = tuple(x.shape) if y is None else f"{tuple(x.shape)} and {tuple(y.shape)}"
            raise InputError(f"critic {self.card.name!r} needs clips of one shape (N, T, 3, H, W), got {given}.")
        frames: Tensor = self(x.flatten(0, 1), None if y is None else y.flatten(0, 1))
        return reduce(frames, "(n t) -> n", "mean", n=len(x))


class CenseoQoENR(CenseoQoE, TrunkCritic):
    """CenseoQoE opinion score, in (0, 5); higher is better.

    Losses read the logit before the sigmoid, which is flat for the worst images.

    Example:
        >>> critic = create_critic("censeoqoe-nr", weights=None)
        >>> x = torch.rand(2, 3, 96, 96, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    trunk: ResNet

    def prepare(self, image: Tensor) -> Tensor:
        return image.flip(1)

    def compare(self, x: Tensor, y: Tensor | None, fx: Features, fy: Features) -> Tensor:
        return self.read_maps(fx["layer4"])


class CenseoQoEFR(CenseoQoE):
    """CenseoQoE opinion score with a reference, in (0, 5); higher is better, identity depends on y.

    The trunk sees six channels, the image and what the reference has more than it. No weights are published:

    Example:
        >>> critic = create_critic("censeoqoe-fr", weights=None).start_from(create_critic("censeoqoe-nr"))
        >>> x = torch.rand(2, 3, 96, 96, requires_grad=True)
        >>> critic(x, torch.rand(2, 3, 96, 96)).sum().backward()
    """

    channels = 6

    def pair(self, x: Tensor, y: Tensor) -> Tensor:
        """What the trunk is fed, (N, 6, H, W): the image, then its lack, both BGR."""
        return torch.cat([x.flip(1), (y - x).flip(1)], 1)

    def linear(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.read_maps(self.trunk(self.pair(x, given(y)), self.taps)["layer4"])

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.squash(self.linear(x, y))

    def start_from(self, critic: CenseoQoENR) -> CenseoQoEFR:
        """Copy a critic without reference; scores are the same, whatever the reference, until this one learns.

        Args:
            critic: Of the same depth and widths; shares nothing with this one afterwards.

        Raises:
            WeightsError: if it is of other sizes.
        """
        state = critic.state_dict()
        kernels = state["trunk.conv1.weight"]
        state["trunk.conv1.weight"] = torch.cat([kernels, torch.zeros_like(kernels)], 1)
        load_states(self, [state], [f"critic {critic.card.name!r}"])
        return self


def _card(kind: Literal["nr", "fr"], summary: str, licence_weights: str, *notes: str) -> Card:
    return opinion_card(
        name=f"censeoqoe-{kind}",
        summary=summary,
        kind=kind,
        bounds=(0.0, _SCALE),
        domains=frozenset({"natural", "video"}),
        min_size=32,
        low_precision=kind == "nr",
        licence_code="MIT",
        licence_weights=licence_weights,
        weights=(f"censeoqoe-{kind}",),
        paper="Wen and Wang, A Strong Baseline for Image and Video Quality Assessment, arXiv 2111.07104, 2021",
        source="https://github.com/Tencent/CenseoQoE commit aeaf40b",
        notes=(
            "5 times the sigmoid; the network itself reads BGR without mean and deviation, which the critic sees to",
            "trained on 1280x720 crops of frames resized to 1920x1080: crops of 128 or 256 score differently, so "
            "compare equal sizes only; nothing is resized here",
            "score_clip(frames) averages over the frames of a clip, as published",
            *notes,
        ),
    )


_NR = _card(
    "nr",
    "Opinion score of an image or of video frames, from one global feature of a small network.",
    "MIT",
    "three trained networks are published: uploaded video (the default), compressed professional video, cloud games",
    "one pooled feature is easily fooled by a faint pattern all over the image: give it little weight beside others",
)
_FR = _card(
    "fr",
    "Opinion score of an image beside what it lacks of its reference, from one global feature of a small network.",
    "the user's own; none published",
    "start_from(create_critic('censeoqoe-nr')) gives it the weights of the critic without reference, to train on",
)
ENTRIES = {"censeoqoe-fr": Entry(_FR, CenseoQoEFR), "censeoqoe-nr": Entry(_NR, CenseoQoENR)}
