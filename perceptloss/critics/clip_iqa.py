r"""CLIP-IQA: whether CLIP finds that a picture goes with "Good photo." rather than with "Bad photo.".

Wang, Chan, Loy: "Exploring CLIP for Assessing the Look and Feel of Images", AAAI 2023. The formula is the paper's; the
image network is CLIP's ResNet-50 (Radford et al., ICML 2021; https://github.com/openai/CLIP, MIT), without its codes
of place, so that images have any size. Numbers follow https://github.com/photosynthesis-team/piq 0.8.0 (Apache-2.0).
The text network is needed once: `export` reads the prompts by open_clip and keeps what it says of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceptloss.card import PIQ, Card, opinion_card
from perceptloss.critic import Critic, Entry
from perceptloss.errors import PerceptlossError
from perceptloss.networks.attention import attend
from perceptloss.networks.batchnorm import COUNTER, BatchStats
from perceptloss.networks.layers import draw
from perceptloss.weights.checkpoints import write_state
from perceptloss.weights.rules import Rule

__all__ = ["CLIPIQA", "ENTRIES", "PROMPTS", "CLIPResNet", "anchors_of", "export"]

PROMPTS: Final = (("Good photo.", "Bad photo."),)
"""Pairs of prompts, the good one first."""
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_BLOCKS = (3, 4, 6, 3)
_EMBEDDING = 1024


class _Block(nn.Module):
    """Convolutions 1x1, 3x3, 1x1 of stride 1 with a shortcut; an average pooling takes the place of a stride."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), BatchStats(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), BatchStats(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), BatchStats(4 * width)
        nn.init.constant_(self.bn3.weight, 0.25)
        self.downsample: nn.ModuleDict | None = None
        if stride > 1 or channels != 4 * width:
            shortcut = {"0": nn.Conv2d(channels, 4 * width, 1, bias=False), "1": BatchStats(4 * width)}
            self.downsample = nn.ModuleDict(shortcut)

    def _pooled(self, h: Tensor) -> Tensor:
        return F.avg_pool2d(h, self.stride) if self.stride > 1 else h

    def forward(self, h: Tensor) -> Tensor:
        inner = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(h))))))
        inner = self.bn3(self.conv3(self._pooled(inner)))
        if self.downsample is not None:
            h = self.downsample["1"](self.downsample["0"](self._pooled(h)))
        return F.relu(inner + h)


class CLIPResNet(nn.Module):
    """CLIP's ResNet-50 without codes of place, images (N, 3, H, W) in [0, 1] to embeddings (N, 1024); OpenAI's names.

    Args:
        width: Channels of the stem.
        embedding: Length of the embedding.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int = 64, embedding: int = _EMBEDDING) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1), persistent=False)
        stem = ((3, width // 2, 2), (width // 2, width // 2, 1), (width // 2, width, 1))
        for n, (channels, out, stride) in enumerate(stem, 1):
            self.add_module(f"conv{n}", nn.Conv2d(channels, out, 3, stride, 1, bias=False))
            self.add_module(f"bn{n}", BatchStats(out))
        channels = width
        for stage, blocks in enumerate(_BLOCKS):
            wide, built = width * 2**stage, []
            for block in range(blocks):
                built.append(_Block(channels, wide, 2 if stage and not block else 1))
                channels = 4 * wide
            self.add_module(f"layer{stage + 1}", nn.Sequential(*built))
        self.heads = channels // 64 or 1
        names = ("q_proj", "k_proj", "v_proj")
        pool = {name: nn.Linear(channels, channels) for name in names} | {"c_proj": nn.Linear(channels, embedding)}
        self.attnpool = nn.ModuleDict(pool)

    def forward(self, image: Tensor) -> Tensor:
        h = (image - self.mean) / self.std
        for n in (1, 2, 3):
            h = F.relu(getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(h)))
        h = F.avg_pool2d(h, 2)
        for stage in (1, 2, 3, 4):
            h = getattr(self, f"layer{stage}")(h)
        tokens = h.flatten(2).mT
        mean = tokens.mean(1, keepdim=True)
        tokens = torch.cat([mean, tokens], 1)
        q, k, v = (self.attnpool[f"{name}_proj"](t) for name, t in (("q", mean), ("k", tokens), ("v", tokens)))
        return self.attnpool["c_proj"](attend(q, k, v, self.heads)).squeeze(1)


@torch.no_grad()
def anchors_of(model: Any, tokenize: Any, prompts: Sequence[tuple[str, str]] = PROMPTS) -> Tensor:
    """What CLIP's text network says of pairs of prompts, unit vectors (pairs, 2, length).

    Args:
        model: With `encode_text`, such as open_clip's.
        tokenize: Its tokenizer.
        prompts: Pairs, the good one first.
    """
    rows = [F.normalize(model.encode_text(tokenize(list(pair))).float(), dim=-1) for pair in prompts]
    return torch.stack(rows)


def export(path: str | Path, prompts: Sequence[tuple[str, str]] = PROMPTS, pretrained: str | None = "openai") -> None:
    """Write the weights of `clip-iqa` for these prompts, by open_clip, which fetches CLIP's ResNet-50.

    Args:
        path: A file to be written, ending in `.safetensors`.
        prompts: Pairs, the good one first; the critic wants `options: {pairs: ...}` for any other number than 1.
        pretrained: open_clip's name of the weights; None for random ones.

    Raises:
        PerceptlossError: if open_clip is not installed.
    """
    try:
        import open_clip
    except ImportError as error:
        raise PerceptlossError('CLIP is read by open_clip: pip install "perceptloss[clip]"') from error
    model = open_clip.create_model("RN50-quickgelu", pretrained=pretrained).eval()
    anchors = anchors_of(model, open_clip.get_tokenizer("RN50-quickgelu"), prompts)
    state = {k: v for k, v in model.state_dict().items() if k.startswith("visual.") or k == "logit_scale"}
    dropped = ("positional_embedding", "num_batches_tracked")
    kept = {key: value.float() for key, value in state.items() if not key.endswith(dropped)}
    write_state(Path(path), {**kept, "anchors": anchors}, {"critic": "clip-iqa", "prompts": [list(p) for p in prompts]})


class CLIPIQA(Critic):
    r"""Share of "good" among "good" and "bad", in [0, 1]; higher is better: softmax of scaled cosines, pairs averaged.

    Args:
        card: Its card.
        pairs: Number of pairs of prompts in the weights.
        width: Channels of the image network's stem.
        embedding: Length of the embedding.

    Example:
        >>> critic = create_critic("clip-iqa", weights=None)
        >>> x = torch.rand(1, 3, 64, 64, requires_grad=True)
        >>> critic(x).sum().backward()
    """

    anchors: Tensor
    logit_scale: Tensor
    rules = (
        Rule(r"visual\.attnpool\.positional_embedding", None, "codes of place are left out, so that sizes are free"),
        Rule(r".*num_batches_tracked", None, COUNTER),
        Rule(
            r"(transformer|token_embedding|ln_final)\..+|positional_embedding|text_projection", None, "the text network"
        ),
        Rule(r"input_resolution|context_length|vocab_size", None, "a fact of the network's shape"),
    )

    def __init__(self, card: Card, *, pairs: int = 1, width: int = 64, embedding: int = _EMBEDDING) -> None:
        super().__init__(card)
        self.visual = CLIPResNet(width, embedding)
        draw(self.visual)
        # antonyms are near each other
        about = torch.randn(pairs, 1, embedding) + 0.1 * torch.randn(pairs, 2, embedding)
        self.register_buffer("anchors", F.normalize(about, dim=-1))
        self.register_buffer("logit_scale", torch.tensor(math.log(100.0)))

    def linear(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """Scaled difference of the cosines with "good" and "bad" of one pair; of several, the logit of their mean."""
        seen = F.normalize(self.visual(x), dim=-1)
        cosines = torch.einsum("ne,pke->npk", seen, F.normalize(self.anchors, dim=-1))
        difference = self.logit_scale.exp() * (cosines[..., 0] - cosines[..., 1])
        if difference.shape[1] == 1:
            return difference.squeeze(1)
        good, bad = (F.logsigmoid(sign * difference).logsumexp(1) for sign in (1, -1))
        return good - bad

    def squash(self, linear: Tensor) -> Tensor:
        return linear.sigmoid()

    def score(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self.squash(self.linear(x))


_CARD = opinion_card(
    name="clip-iqa",
    summary='Whether CLIP finds that a picture goes with "Good photo." rather than with "Bad photo.".',
    kind="nr",
    bounds=(0.0, 1.0),
    min_size=32,
    tiling="never",
    fidelity="paper",
    licence_code="Apache-2.0 (piq), MIT (CLIP); the authors' own, under the S-Lab License 1.0, is not used",
    licence_weights="MIT (CLIP's ResNet-50)",
    weights=("clip-iqa",),
    paper="Wang et al., Exploring CLIP for Assessing the Look and Feel of Images, AAAI 2023",
    source=f"{PIQ}; https://github.com/openai/CLIP (MIT)",
    notes=(
        "never taught on opinions: it follows beauty and content as well as damage",
        "one pair of prompts; others, and several that are averaged, through perceptloss.critics.clip_iqa.export",
        "losses read the difference of the scaled cosines, before the sigmoid that goes flat at both ends",
    ),
)

ENTRIES = {"clip-iqa": Entry(_CARD, CLIPIQA)}
