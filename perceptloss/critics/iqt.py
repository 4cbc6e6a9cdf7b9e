"""IQT: a transformer whose encoder reads feature differences and whose decoder reads the reference.

Cheon, Yoon, Kang, Lee: "Perceptual Image Quality Assessment with Transformers", CVPR Workshops
2021. The authors published no code; settings, names of tensors and the form `iqt-port` are those of
the port https://github.com/anse3832/IQT (commit 90380ee, no licence stated). Ours: no dropout, and
images larger than a crop are judged by several.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from perceptloss.card import Card, opinion_card
from perceptloss.critic import Entry
from perceptloss.networks.attention import attend
from perceptloss.networks.inception_tokens import InceptionTokens
from perceptloss.networks.patches import crops_note
from perceptloss.networks.trunks import inception_rules
from perceptloss.weights.rules import Rule

__all__ = ["ENTRIES", "IQT", "MaskedIQT"]

_EPS = 1e-12  # of the layer norms


class Attention(nn.Module):
    """Attention of tokens to others, (N, T, width); each head is as wide as a token."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.W_Q, self.W_K, self.W_V = (nn.Linear(width, heads * width) for _ in range(3))
        self.linear = nn.Linear(heads * width, width)

    def forward(self, tokens: Tensor, others: Tensor) -> Tensor:
        return self.linear(attend(self.W_Q(tokens), self.W_K(others), self.W_V(others), self.heads))


class FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = nn.Linear(width, hidden)
        self.conv2 = nn.Linear(hidden, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.conv2(F.gelu(self.conv1(tokens)))


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward; every sum is normalised after it."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.pos_ffn = FeedForward(width, hidden)
        self.layer_norm1, self.layer_norm2 = (nn.LayerNorm(width, _EPS) for _ in range(2))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.layer_norm1(tokens + self.self_attn(tokens, tokens))
        return self.layer_norm2(tokens + self.pos_ffn(tokens))


class DecoderLayer(nn.Module):
    """Self-attention, attention to the encoder's tokens, feed-forward; normalised like the encoder's."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn, self.dec_enc_attn = Attention(width, heads), Attention(width, heads)
        self.pos_ffn = FeedForward(width, hidden)
        self.layer_norm1, self.layer_norm2, self.layer_norm3 = (nn.LayerNorm(width, _EPS) for _ in range(3))

    def forward(self, tokens: Tensor, encoded: Tensor, wanted: int) -> Tensor:
        """The first `wanted` tokens after the layer, which attend to all."""
        first = tokens[:, :wanted]
        first = self.layer_norm1(first + self.self_attn(first, tokens))
        first = self.layer_norm2(first + self.dec_enc_attn(first, encoded))
        return self.layer_norm3(first + self.pos_ffn(first))


class Stack(nn.Module):
    """Layers behind a learned quality token, which is put first, and learned positions."""

    def __init__(self, tokens: int, width: int, layers: list[nn.Module]) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width))
        self.pos_embedding = nn.Parameter(torch.randn(1, tokens + 1, width))
        self.layers = nn.ModuleList(layers)

    def embed(self, features: Tensor) -> Tensor:
        """Projected maps, (N, width, h, w), as tokens, (N, 1 + h w, width)."""
        tokens = rearrange(features, "n c h w -> n (h w) c")
        return torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1) + self.pos_embedding


class IQT(InceptionTokens):
    """IQT score, standardised opinion of PIPAL; higher is better, without a fixed score at identity.

    Defaults are the settings for PIPAL. For LIVE, CSIQ and TID2013 the authors use
    `side=256, layers=2, width=256, head=512`.

    Args:
        card: What it is; `side` becomes its `min_size`.
        side: Side of the crops, in pixels.
        layers: Of the encoder, and of the decoder.
        width: Channels of a token.
        heads: Heads of every attention, each `width` wide.
        hidden: Units of the feed-forward layers.
        head: Units between the quality token and the score.
        blocks: Residual blocks of the trunk, even.

    Example:
        >>> critic = create_critic("iqt", weights=None)
        >>> x = torch.rand(1, 3, 192, 192, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 192, 192)).sum().backward()
    """

    rules = (
        *inception_rules(r"(?:backbone\.)?"),
        Rule(r"transformer\.(conv_enc|conv_dec|projection)\.(.+)", r"\1.\2"),
        Rule(r"(?:transformer\.)?transformer\.(encoder|decoder)\.(.+)", r"\1.\2"),
    )

    def __init__(
        self,
        card: Card,
        *,
        side: int = 192,
        layers: int = 1,
        width: int = 128,
        heads: int = 4,
        hidden: int = 1024,
        head: int = 128,
        blocks: int = 10,
    ) -> None:
        super().__init__(card, side, blocks)
        self.conv_enc, self.conv_dec = (nn.Conv2d(self.channels, width, 1) for _ in range(2))
        self.encoder, self.decoder = (
            Stack(self.map_side**2, width, [layer(width, heads, hidden) for _ in range(layers)])
            for layer in (EncoderLayer, DecoderLayer)
        )
        self.projection = nn.Sequential(nn.Linear(width, head, bias=False), nn.ReLU(), nn.Linear(head, 1, bias=False))

    def judge(self, difference: Tensor, reference: Tensor) -> Tensor:
        encoded = self.encode(difference)
        return self.projection(self.decode(reference, encoded)[:, 0]).squeeze(1)

    def encode(self, difference: Tensor) -> Tensor:
        """Tokens of the difference, quality token first, (N, 1 + h w, width)."""
        tokens = self.encoder.embed(self.conv_enc(difference))
        for layer in self.encoder.layers:
            tokens = layer(tokens)
        return tokens

    def decode(self, reference: Tensor, encoded: Tensor) -> Tensor:
        """The decoded quality token, (N, 1, width); the last layer makes no other, as none is read."""
        tokens = self.decoder.embed(self.conv_dec(reference))
        *inner, last = self.decoder.layers
        for layer in inner:
            tokens = layer(tokens, encoded, tokens.shape[1])
        return last(tokens, encoded, 1)


class MaskedIQT(IQT):
    """IQT of the public port, whose decoder is masked like a language model's; higher is better.

    A token attends to itself and to those before it. The quality token is the first: it sees itself
    alone, and the tokens of the reference never reach the score. They are therefore not made here.

    Example:
        >>> critic = create_critic("iqt-port", weights=None)
        >>> x = torch.rand(1, 3, 192, 192, requires_grad=True)
        >>> critic(x, torch.rand(1, 3, 192, 192)).sum().backward()
    """

    unused = (r"conv_dec\..+", r"decoder\.layers\.\d+\.self_attn\.W_[QK]\..+")

    def decode(self, reference: Tensor, encoded: Tensor) -> Tensor:
        token = (self.decoder.cls_token + self.decoder.pos_embedding[:, :1]).expand(len(encoded), -1, -1)
        for layer in self.decoder.layers:
            token = layer(token, encoded, 1)
        return token


_CARD = opinion_card(
    name="iqt",
    summary="Opinion score of GAN-like artefacts by a transformer on Inception features, winner of NTIRE 2021.",
    kind="fr",
    min_size=192,
    fidelity="paper",
    licence_code="none stated (public port; the authors published no code)",
    licence_weights="none stated (port), Apache-2.0 (timm trunk)",
    weights=("inception_resnet_v2", "iqt"),
    paper="Cheon et al., Perceptual Image Quality Assessment with Transformers, CVPR Workshops 2021",
    source="https://github.com/anse3832/IQT commit 90380ee (public port)",
    notes=(
        "the paper's form: the decoder attends to all tokens of the reference; nobody has published weights for it, "
        "and those of the port are for iqt-port",
        "settings that are not in the paper, such as heads as wide as the tokens, are the port's",
        crops_note(192, authors="average 20 random crops"),
        "the score of an image against itself depends on the image; scores are not symmetric",
        "convolutions of the trunk's stem are not padded: the outermost pixels of a crop weigh least",
        "settings for LIVE, CSIQ and TID2013: IQT(card, side=256, layers=2, width=256, head=512)",
    ),
)
_PORT = replace(
    _CARD,
    name="iqt-port",
    summary="IQT as its public port computes it: a masked decoder, so only differences from the reference count.",
    fidelity="official-parity",
    weights=("inception_resnet_v2", "iqt-port"),
    notes=(
        "for the port's weights and for comparison with numbers made by it; the paper's form is iqt",
        "the port masks its decoder causally, so the quality token, which comes first, sees only itself: tokens of the "
        "reference never reach the score, and conv_dec and the queries and keys of the decoder's self-attention "
        "get no gradient",
        *_CARD.notes[2:5],
        "for identical pairs the score is one constant of the weights",
        "the port trained on Cadene's conversion of the trunk, a file that loads in place of timm's",
    ),
)

ENTRIES = {"iqt": Entry(_CARD, IQT), "iqt-port": Entry(_PORT, MaskedIQT)}
