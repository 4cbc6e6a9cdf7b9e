"""Large trunks, whose layers come from timm (`pip install "perceptloss[timm]"`): Inception-ResNet-v2 and ViT.

Sources: Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning, AAAI 2017; Dosovitskiy et al., An Image is Worth 16x16 Words, ICLR 2021. State-dict names
are timm's, without the layers behind the last tap. `lean` means recomputation here, as `stages`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from perceptloss.errors import InputError, PerceptlossError
from perceptloss.networks.batchnorm import COUNTER
from perceptloss.networks.trunks.trunk import HALF, Keep, Normalisation, Trunk
from perceptloss.weights.rules import Rule

__all__ = ["InceptionResNet", "VisionTransformer", "inception_rules", "vit_rules"]

_STEM = ("conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_3b", "conv2d_4a", "maxpool_5a", "mixed_5b")


def _timm_model(name: str, **options: Any) -> Any:
    """A timm network without values: its layers are filled later, once the unused ones are gone."""
    try:
        import timm
    except ImportError as error:
        raise PerceptlossError(f'the trunk {name!r} needs timm: pip install "perceptloss[timm]"') from error
    with torch.device("meta"):
        return timm.create_model(name, pretrained=False, **options)


def _materialised(module: nn.Module) -> nn.Module:
    module.to_empty(device="cpu")
    for part in module.modules():
        reset = getattr(part, "reset_parameters", None)
        if reset is not None:
            reset()
        if getattr(part, "num_batches_tracked", None) is not None:
            part.num_batches_tracked = None  # type: ignore[assignment]
            part.track_running_stats = False  # type: ignore[assignment]  # else loading a plain dict asks for the counter
    return module


class _LargeTrunk(Trunk):
    """Always in evaluation mode: statistics are stored ones and nothing is dropped, frozen or learning."""

    def train(self, mode: bool = True) -> _LargeTrunk:
        return super().train(False)

    def run(self, h: Tensor, first: int, end: int, reads: Sequence[int], keep: Keep) -> tuple[Tensor, ...]:
        if keep == "lean" and h.requires_grad:
            return checkpoint(super().run, h, first, end, reads, keep, use_reentrant=False)
        return super().run(h, first, end, reads, keep)


class InceptionResNet(_LargeTrunk):
    """Inception-ResNet-v2 up to its last Block35; taps `mixed_5b`, `block35_1` ... `block35_10`, 320 channels each.

    Convolutions of the stem are not padded: 192 x 192 images give 21 x 21 maps, 256 x 256 give 29 x 29.
    1.7 M parameters.
    """

    def __init__(self, normalise: Normalisation | None = HALF, blocks: int = 10) -> None:
        taps = {"mixed_5b": len(_STEM) - 1} | {f"block35_{i + 1}": len(_STEM) + i for i in range(blocks)}
        super().__init__("inception_resnet_v2", taps, normalise)
        whole = _timm_model("inception_resnet_v2")
        for name in _STEM:
            self.add_module(name, _materialised(getattr(whole, name)))
        self.repeat = nn.Sequential(*(_materialised(block) for block in list(whole.repeat)[:blocks]))
        self.finish()

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        return [(getattr(self, name),) for name in _STEM] + [(block,) for block in self.repeat]

    def step(self, h: Tensor, position: int, keep: Keep) -> Tensor:
        return self.parts()[position][0](h)


class VisionTransformer(_LargeTrunk):
    """The first blocks of a timm vision transformer with a class token.

    A tap, `block0`, `block1`, ..., is the map of the patch tokens after a block.

    Args:
        name: timm's name, such as `vit_base_patch8_224`, which fixes the size of the images.
        blocks: Number of blocks.
        normalise: See `Trunk`.
        options: Further arguments of timm, such as `embed_dim`.
    """

    def __init__(self, name: str, blocks: int, normalise: Normalisation | None = HALF, **options: Any) -> None:
        arch = "-".join([name, *(f"{key}={value}" for key, value in sorted(options.items()))])
        super().__init__(arch, {f"block{k}": k + 1 for k in range(blocks)}, normalise)
        whole = _timm_model(name, depth=blocks, **options)
        self.patch_embed = _materialised(whole.patch_embed)
        self.cls_token = nn.Parameter(torch.empty(whole.cls_token.shape))
        self.pos_embed = nn.Parameter(torch.empty(whole.pos_embed.shape))
        self.blocks = nn.Sequential(*(_materialised(block) for block in whole.blocks))
        for block in whole.blocks:
            block.attn.fused_attn = False  # torch's fused kernel has no second derivative
        self.grid, self.side = whole.patch_embed.grid_size, whole.patch_embed.img_size[0]
        self.finish()

    def finish(self) -> None:
        super().finish()
        generator = torch.Generator().manual_seed(zlib.crc32(self.arch.encode()))
        with torch.no_grad():
            for token in (self.cls_token, self.pos_embed):
                token.normal_(0, 0.02, generator=generator)
            for module in self.modules():
                if isinstance(module, nn.Linear):
                    nn.init.xavier_normal_(module.weight, generator=generator)
                    nn.init.zeros_(module.bias)

    def parts(self) -> Sequence[Sequence[nn.Module]]:
        return [(self.patch_embed,), *((block,) for block in self.blocks)]

    def step(self, h: Tensor, position: int, keep: Keep) -> Tensor:
        if position:
            return self.blocks[position - 1](h)
        if h.shape[-2:] != (self.side, self.side):
            raise InputError(f"this trunk takes {self.side}x{self.side} images, got {h.shape[-2]}x{h.shape[-1]}.")
        tokens = self.patch_embed(h)
        return torch.cat([self.cls_token.expand(len(h), -1, -1), tokens], 1) + self.pos_embed

    def read(self, h: Tensor) -> Tensor:
        # not by einops, whose strides of a single image would choose another convolution and move scores
        return h[:, 1:].transpose(1, 2).unflatten(2, self.grid)


def inception_rules(prefix: str = "") -> tuple[Rule, ...]:
    """How timm's Inception-ResNet-v2 file is read into `trunk`; `prefix` as for `resnet_rules`."""
    return (
        Rule(prefix + r".*num_batches_tracked", None, COUNTER),
        Rule(prefix + rf"((?:{'|'.join(_STEM)}|repeat)\..+)", r"trunk.\1"),
        Rule(prefix + r"(mixed_6a|mixed_7a|repeat_[12]|block8|conv2d_7b|classif|last_linear)\..+", None, _BEHIND),
    )


def vit_rules(prefix: str = "", target: str = "trunk", blocks: int = 12) -> tuple[Rule, ...]:
    """How timm's vision transformer file is read into the child `target`; `prefix` as for `resnet_rules`.

    Args:
        prefix: What a checkpoint puts before the names.
        target: Name of the trunk in the critic.
        blocks: Number of blocks that the trunk has; later ones are left out.
    """
    kept = "|".join(str(k) for k in range(blocks))
    return (
        Rule(prefix + rf"((?:cls_token|pos_embed|patch_embed\..+|blocks\.(?:{kept})\..+))", rf"{target}.\1"),
        Rule(prefix + r"(blocks\.\d+|norm|fc_norm|head)\..+", None, _BEHIND),
    )


_BEHIND = "layers behind the last tap are not used"
