r"""A-FINE: fidelity to a reference that need not be perfect, and naturalness, weighed by that of the reference.

Chen, Wu, Ma, Zhang: "Toward Generalized Image Quality Assessment: Relaxing the Perfect Reference Quality Assumption",
CVPR 2025. Original: https://github.com/ChrisDud0257/AFINE (Apache-2.0), on CLIP's ViT-B/32
(https://github.com/openai/CLIP, MIT).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import Card
from perceptloss.critic import Critic, Entry, given
from perceptloss.networks.attention import attend
from perceptloss.weights.rules import Rule

__all__ = ["AFINE", "ENTRIES", "CLIPTransformer", "fidelity", "moments"]

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_TINY = 1e-10
_CENTRE, _SPREAD = -1.9710, 2.3734  # of the last scale


class _Block(nn.Module):
    """CLIP's transformer layer, tokens (N, T, width) to the same shape; OpenAI's names."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        q, k, v = self.qkv(self.ln_1(h)).chunk(3, -1)
        h = h + self.out_proj(attend(q, k, v, self.heads))
        inner = self.c_fc(self.ln_2(h))
        return h + self.c_proj(inner * torch.sigmoid(1.702 * inner))


class CLIPTransformer(nn.Module):
    """CLIP's vision transformer, normalised images (N, 3, H, W) to the patch tokens after every block, (N, T, width).

    Args:
        side: Of the images it was trained on, which says how many codes of place there are.
        patch: Side of a patch.
        width: Of the tokens.
        layers: Number of blocks.
        heads: Of the attention.
    """

    def __init__(self, side: int = 224, patch: int = 32, width: int = 768, layers: int = 12, heads: int = 12) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(width**-0.5 * torch.randn((side // patch) ** 2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))

    def forward(self, image: Tensor) -> list[Tensor]:
        tokens = self.conv1(image).flatten(2).mT
        h = torch.cat([self.class_embedding.expand(len(tokens), 1, -1), tokens], 1)
        # the authors resample codes of place along the row of tokens, the class's included
        codes = F.interpolate(self.positional_embedding[None, None], h.shape[1:], mode="bicubic", align_corners=False)
        h = self.ln_pre(h + codes[0])
        found = []
        for block in self.blocks:
            h = block(h)
            found.append(h[:, 1:])
        return found


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance over places, (N, T, C) to two of (N, C)."""
    return features.mean(1), features.var(1, correction=0)


def fidelity(fx: list[Tensor], fy: list[Tensor], alpha: Tensor, beta: Tensor) -> Tensor:
    """A DISTS of the pixels and of every block's tokens, 0 where they are equal: lists of (N, T, C) to (N,).

    Args:
        fx: Features of the judged images.
        fy: Of the references.
        alpha: Weights of the means of all channels, before softplus and norming, (C_1 + C_2 + ...,).
        beta: Of the structures.
    """
    alpha, beta = F.softplus(alpha), F.softplus(beta)
    total = alpha.sum() + beta.sum() + _TINY
    sizes = [f.shape[-1] for f in fx]
    lost = fx[0].new_zeros(len(fx[0]))
    for x, y, a, b in zip(fx, fy, alpha.split(sizes), beta.split(sizes), strict=True):
        (mx, vx), (my, vy) = moments(x), moments(y)
        both = (x * y).mean(1) - mx * my
        means = 1 - (2 * mx * my + _TINY) / (mx.square() + my.square() + _TINY)
        structures = 1 - (2 * both + _TINY) / (vx + vy + _TINY)
        lost = lost + (means @ a + structures @ b) / total
    return lost


def _between(value: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
    """A logistic from -2 to 2."""
    return 4 * torch.sigmoid((value - centre) / (spread.abs() + _TINY)) - 2


class AFINE(Critic):
    """A-FINE on its scale of 0 to 100; lower is better. Not 0 for equal images: the reference is judged too.

    Args:
        card: Its card.
        width: Of the tokens.
        layers: Number of blocks.
        heads: Of the attention.
        hidden: Length to which the statistics of a block are reduced.

    Example:
        >>> critic = create_critic("a-fine", weights=None)
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 64, 64)).sum().backward()
    """

    mean: Tensor
    std: Tensor
    fidelity_3: nn.Parameter
    fidelity_4: nn.Parameter
    natural_3: nn.Parameter
    natural_4: nn.Parameter
    k: nn.Parameter
    rules = (
        Rule(r"finetuned_clip\.visual\.(proj|ln_post\..+)", None, "the end of the network is not used"),
        Rule(r"finetuned_clip\.visual\.transformer\.resblocks\.(\d+)\.attn\.in_proj_(.+)", r"visual.blocks.\1.qkv.\2"),
        Rule(r"finetuned_clip\.visual\.transformer\.resblocks\.(\d+)\.(?:attn|mlp)\.(.+)", r"visual.blocks.\1.\2"),
        Rule(r"finetuned_clip\.visual\.transformer\.resblocks\.(\d+\..+)", r"visual.blocks.\1"),
        Rule(r"finetuned_clip\.visual\.(.+)", r"visual.\1"),
        Rule(r"finetuned_clip\.(?!visual).+", None, "the text network"),
        Rule(r"(?:natural|fidelity)\.(?:mean|std)", None, "the normalisation of CLIP"),
        Rule(r"natural\.proj_feat\.(.+)", r"reduce.\1"),
        Rule(r"natural\.proj_head\.(\d\..+)", r"head.\1"),
        Rule(r"fidelity\.(alpha|beta)", r"\1"),
        Rule(r"fidelity_scale\.yita(\d)", r"fidelity_\1"),
        Rule(r"natural_scale\.yita(\d)", r"natural_\1"),
        Rule(r"adapter\.k", "k"),
    )

    def __init__(self, card: Card, *, width: int = 768, layers: int = 12, heads: int = 12, hidden: int = 128) -> None:
        super().__init__(card)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        self.visual = CLIPTransformer(width=width, layers=layers, heads=heads)
        self.reduce = nn.Linear(2 * width, hidden)
        self.head = nn.Sequential(nn.Linear(6 + hidden * layers, 6 * hidden), nn.GELU(), nn.Linear(6 * hidden, 1))
        self.alpha = nn.Parameter(0.1 + 0.01 * torch.randn(3 + width * layers))
        self.beta = nn.Parameter(0.1 + 0.01 * torch.randn(3 + width * layers))
        starts = {"fidelity_3": 0.5, "fidelity_4": 0.15, "natural_3": 4.9592, "natural_4": 21.5968, "k": 5.0}
        for name, value in starts.items():
            self.register_parameter(name, nn.Parameter(torch.tensor(value)))

    def features(self, image: Tensor) -> list[Tensor]:
        """Pixels, then the tokens of every block above 0, each (N, T, C)."""
        normal = (image - self.mean) / self.std
        size = [-(-n // 32) * 32 for n in image.shape[2:]]
        if list(image.shape[2:]) != size:
            normal = F.interpolate(normal, size, mode="bicubic", align_corners=False)
        pixels = normal * self.std + self.mean
        return [pixels.flatten(2).mT, *(F.relu(tokens) for tokens in self.visual(normal))]

    def unnatural(self, features: list[Tensor]) -> Tensor:
        """How unnatural images look, from -2 to 2, (N,)."""
        found = [torch.cat(moments(f), 1) for f in features]
        read = self.head(torch.cat([found[0], *(self.reduce(f) for f in found[1:])], 1)).squeeze(1)
        return _between(read, self.natural_3, self.natural_4)

    def linear(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """A-FINE before its last scale: F + N exp(k (N_y - N_x)), from minus to plus infinity, lower is better."""
        fx = self.features(x)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            fy = self.features(given(y))
        centre, spread = self.fidelity_3.clamp(0.05, 0.95), self.fidelity_4.clamp(0.01, 0.70)
        lost = _between(fidelity(fx, fy, self.alpha.flatten(), self.beta.flatten()), centre, spread)
        ours, theirs = self.unnatural(fx), self.unnatural(fy)
        return torch.exp(F.softplus(self.k) * (theirs - ours)) * ours + lost

    def squash(self, linear: Tensor) -> Tensor:
        return 100 * torch.sigmoid((linear - _CENTRE) / _SPREAD)

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.squash(self.linear(x, y))


_CARD = Card(
    name="a-fine",
    summary="Fidelity to a reference that need not be perfect, and naturalness, weighed by that of the reference.",
    kind="fr",
    better="lower",
    bounds=(0.0, 100.0),
    identity=None,
    shape="hinge",
    domains=frozenset({"natural", "super-resolution"}),
    min_size=32,
    tiling="never",
    fidelity="paper",
    licence_code="Apache-2.0",
    licence_weights="Apache-2.0; MIT (CLIP inside)",
    weights=("a-fine",),
    paper="Chen et al., Toward Generalized Image Quality Assessment: Relaxing the Perfect Reference Quality "
    "Assumption, CVPR 2025",
    source="https://github.com/ChrisDud0257/AFINE commit 04d8d33",
    notes=(
        "an image may beat its reference, if that is not natural: a loss of it need not pull towards the reference",
        "sides that are no multiples of 32 are resampled upwards inside, as the authors do",
        "losses read A-FINE before its last scale, which goes flat at both ends",
    ),
)

ENTRIES = {"a-fine": Entry(_CARD, AFINE)}
