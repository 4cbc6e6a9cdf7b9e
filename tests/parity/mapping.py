"""Where the quantities that a parity case names are found in our critics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from perceptloss.critic import Critic
from perceptloss.critics.ahiq import AHIQ
from perceptloss.critics.deepdc import DeepDC, centred_distances
from perceptloss.critics.pieapp import PieAPP
from perceptloss.critics.radn import RADN
from perceptloss.networks.inception_tokens import InceptionTokens
from perceptloss.networks.patch_ladder import SIDE, patch_grid
from perceptloss.networks.patches import cut
from perceptloss.networks.trunks import TrunkCritic

Reader = Callable[[Critic, Tensor, "Tensor | None"], Tensor]

_NAMES = {  # where `_` to `-` is not enough
    "iqt": "iqt-port",
    "srsim": "sr-sim",
    "srsimc": "sr-simc",
    "ssim_full_size": "ssim-full",
    "tv_l2": "tv",
}
_LPIPS = ("lpips-alex", "lpips-squeeze", "lpips-vgg")


def critic_name(system: str, metric: str | None = None) -> str:
    """Registry name for a case's system, or for one metric of a case that holds several."""
    name = metric or system
    return _NAMES.get(name, name.replace("_", "-"))


def _tap(name_or_place: str | int) -> Reader:
    def read(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
        assert isinstance(critic, TrunkCritic)
        name = critic.taps[name_or_place] if isinstance(name_or_place, int) else name_or_place
        return critic.trunk(critic.prepare(x), (name,))[name]

    return read


def _distances(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
    assert isinstance(critic, TrunkCritic) and y is not None
    fx, fy = (critic.trunk(critic.prepare(image), critic.taps) for image in (x, y))
    return critic.distances(fx, fy)


def _levels(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
    assert isinstance(critic, TrunkCritic) and y is not None
    fx, fy = (critic.trunk(critic.prepare(image), critic.taps) for image in (x, y))
    return critic.distances(x, y, fx, fy).squeeze(1)


def _output(path: str, then: Callable[[Tensor], Tensor] = lambda t: t) -> Reader:
    """What a part of the critic returns while it scores (at its last call)."""

    def read(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
        found: list[Tensor] = []
        handle = critic.get_submodule(path).register_forward_hook(lambda module, given, out: found.append(out))
        critic.score(x, y)
        handle.remove()
        return then(found[-1])

    return read


def _outputs(paths: dict[str, str]) -> dict[str, Reader]:
    """What parts of a large critic return while it scores, read in one run for all of them."""
    last: list[tuple[Critic, Tensor, dict[str, Tensor]]] = []

    def run(critic: Critic, x: Tensor) -> dict[str, Tensor]:
        # the kept image keeps its memory, so an image at the same place is the same
        if last and last[0][0] is critic and last[0][1].data_ptr() == x.data_ptr() and last[0][1].shape == x.shape:
            return last[0][2]
        found: dict[str, Tensor] = {}
        handles = [
            critic.get_submodule(path).register_forward_hook(
                lambda module, given, out, name=name: found.update({name: out})
            )
            for name, path in paths.items()
        ]
        critic.score(x)
        for handle in handles:
            handle.remove()
        last[:] = [(critic, x, found)]
        return found

    return {name: lambda critic, x, y, name=name: run(critic, x)[name] for name in paths}


def _radn(read: Callable[[RADN, Tensor, Tensor], Tensor]) -> Reader:
    """From the maps of the patches of the first distorted image, and the offsets that its reference gives."""

    def wrapped(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
        assert isinstance(critic, RADN) and y is not None
        grid = patch_grid(*x.shape[-2:])
        hx, hy = (critic.ladder[:-1](cut(image[:1], *grid, SIDE)) for image in (x, y))
        return read(critic, hx, critic.offset(hy))

    return wrapped


_LPIPS_READERS: dict[str, Reader] = {
    "first tap (features of the distorted image)": _tap(0),
    "last tap (features of the distorted image)": _tap(-1),
    "weighted spatial mean per tap, one row per tap": _distances,
    "spatial map (bilinear, input size)": lambda critic, x, y: critic.maps(x, y),
}
_STAGES: dict[str, Reader] = {
    "stage1 output, distorted": _tap("relu1_2"),
    "stage3 output, distorted": _tap("relu3_3"),
    "stage5 output, distorted": _tap("relu5_3"),
}

_ASNA: dict[str, Reader] = {
    "d0.bn output (64 channels, before upsampling)": _output("d0"),
    "d5.bn output": _output("d5"),
    "attention block output": _output("att"),
    "dense_1 output (after ReLU)": _output("dense_1", torch.relu),
    "dense_2 output (after tanh)": _output("dense_2", torch.tanh),
}
_RADN: dict[str, Reader] = {
    "features of the distorted patches before deformation (first image)": _radn(lambda radn, hx, offset: hx),
    "offsets (from the reference, first image)": _radn(lambda radn, hx, offset: offset),
    "patch vectors after deformation, distorted (first image)": _radn(
        lambda radn, hx, offset: radn.vectors_of(hx, offset, radn.deform_x)
    ),
    "after the patch-level non-local block (1, channels, patches, 1)": _output(
        "across_x", lambda v: v[:1].transpose(1, 2)[..., None]
    ),
}


def _deepdc_matrix(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
    return centred_distances(_tap("relu3_4")(critic, x, y))


def _deepdc_correlations(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
    assert isinstance(critic, DeepDC) and y is not None
    return critic.correlations(*(critic.trunk(image, critic.taps) for image in (x, y)))


_DEEPDC: dict[str, Reader] = {
    "tap 1 (conv1_2), distorted": _tap("relu1_2"),
    "tap 4 (conv4_4), distorted": _tap("relu4_4"),
    "tap 5 (conv5_4), distorted": _tap("conv5_4"),
    "double-centred distance matrix of tap 3, distorted": _deepdc_matrix,
    "distance correlation per tap": _deepdc_correlations,
}


def _pieapp_patches(which: int) -> Reader:
    def read(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
        assert isinstance(critic, PieAPP) and y is not None
        # the case lists the patches of its first image only
        taps = (critic.trunk(critic.prepare(image[:1]), critic.taps) for image in (x, y))
        return critic.judge(*taps)[which][:, None]

    return read


def _pieapp_features(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
    assert isinstance(critic, PieAPP)
    taps = critic.trunk(critic.prepare(x[:1]), critic.taps)
    return torch.cat([taps[tap].flatten(1) for tap in critic.taps], 1)


_PIEAPP: dict[str, Reader] = {
    "patch errors": _pieapp_patches(0),
    "patch weights": _pieapp_patches(1),
    "multi-scale features of the distorted patches": _pieapp_features,
    "coarse features of the distorted patches": lambda critic, x, y: _pieapp_features(critic, x, y)[:, -2048:],
}


_kept: list[tuple[Critic, Tensor, dict[str, Tensor]]] = []  # of both images of a pair, while several readers ask


def _all_taps(critic: Critic, x: Tensor) -> dict[str, Tensor]:
    assert isinstance(critic, TrunkCritic)
    for owner, image, taps in _kept:  # a kept image keeps its memory, so an image at the same place is the same
        if owner is critic and image.data_ptr() == x.data_ptr() and image.shape == x.shape:
            return taps
    found = critic.trunk(critic.prepare(x), critic.taps)
    _kept[:] = [*_kept[-1:], (critic, x, {tap: found[tap] for tap in critic.taps})]
    return _kept[-1][2]


def _joined(start: str) -> Reader:
    """All taps of one part of a joined trunk, side by side."""

    def read(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
        found = _all_taps(critic, x)
        return torch.cat([found[tap] for tap in found if tap.startswith(start)], 1)

    return read


def _ahiq_offset(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
    assert isinstance(critic, AHIQ) and y is not None
    return critic.deform_net.offset(_joined("vit.")(critic, y, None), (56, 56))


def _ahiq_deformed(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
    assert isinstance(critic, AHIQ)
    return critic.deform_net(_joined("resnet.")(critic, x, None), _ahiq_offset(critic, x, y))


_AHIQ: dict[str, Reader] = {
    "ViT features, distorted (5 x 768 channels)": _joined("vit."),
    "ResNet features, distorted (3 x 256 channels)": _joined("resnet."),
    "deformable offsets (from the reference)": _ahiq_offset,
    "deformable branch output, distorted": _ahiq_deformed,
}


def _tokens(read: Callable[[Any, Tensor, Tensor], Tensor]) -> Reader:
    """From the joined taps of the distorted images and of the references."""

    def wrapped(critic: Critic, x: Tensor, y: Tensor | None) -> Tensor:
        assert isinstance(critic, InceptionTokens) and y is not None
        fx, fy = (critic.joined(critic.trunk(critic.prepare(image), critic.taps)) for image in (x, y))
        return read(critic, fx, fy)

    return wrapped


_IQT: dict[str, Reader] = {
    "backbone features, distorted (6 x 320 channels)": _tokens(lambda iqt, fx, fy: fx),
    "encoder output": _tokens(lambda iqt, fx, fy: iqt.encode(fy - fx)),
}
_CONFORMER: dict[str, Reader] = {
    **_IQT,
    "projected difference features": _tokens(lambda critic, fx, fy: critic.conv_proj(fy - fx)),
    "decoder output": _tokens(lambda critic, fx, fy: critic.decode(fy, critic.encode(fy - fx))),
}

_MANIQA = _outputs(
    {
        "ViT block 9 output": "trunk.blocks.9",
        "after the first channel-attention stage and 1x1 convolution": "conv1",
        "first Swin stage output": "swintransformer1",
        "second Swin stage output": "swintransformer2",
    }
)

INTERMEDIATES: dict[str, dict[str, Reader]] = {
    "maniqa": _MANIQA,
    "iqa-conformer": _CONFORMER,
    "iqt-port": _IQT,
    "ahiq": _AHIQ,
    "asna": _ASNA,
    "radn": _RADN,
    **dict.fromkeys(_LPIPS, _LPIPS_READERS),
    "dists": _STAGES,
    "deepdc": _DEEPDC,
    "deepwsd": {**_STAGES, "distance per level: image, stage1..stage5": _levels},
    "pieapp": _PIEAPP,
}

# (critic, intermediate) that our structure does not have, with the reason
NOT_OURS: dict[tuple[str, str], str] = {}

# (rtol, why) where float32 cannot follow the float64 gradient to the case's tolerance
_MEDIAN = (
    "the noise level is a median: all its gradient falls on one pixel, and rounding picks another of the same rank"
)
LOOSE_FLOAT32_GRADIENTS: dict[str, tuple[float, str]] = dict.fromkeys(("fsim", "fsimc"), (5e-3, _MEDIAN))
# the same in any precision, because the authors' code rounds inside
_RESIZE = "piq resizes in float32 whatever it is given, and the logarithm of weak frequencies shows the rounding"
LOOSE_GRADIENTS: dict[str, tuple[float, str]] = dict.fromkeys(("sr-sim", "sr-simc"), (1e-3, _RESIZE))

# (critic, input) of batches whose images the authors' code does not score alone, with the reason
COUPLED: dict[tuple[str, str], str] = {
    (name, "batch of two"): "piq normalises saliency by the extremes of the whole batch" for name in LOOSE_GRADIENTS
}


# critic -> input -> the only type in which it is run, where all inputs in both types would take minutes
ONE_TYPE: dict[str, dict[str, str]] = {
    "maniqa": {"one image": "float64", "not square, one crop": "float32"},
    "ahiq": {"batch of two": "float32", "not square, two crops averaged": "float32", "identical pair": "float64"},
}


def _test_form(critic: Critic, x: Tensor, score: Tensor) -> Tensor:
    """DeepWSD's test form: log(score + 1), squared if the image was shrunk."""
    logarithm = torch.log(score + 1)
    return logarithm if critic.factor(x) == 1 else logarithm.square()


# further fields of an expected row: how they follow from our critic, the distorted image and its score
AUTHORS_EXTRAS: dict[str, dict[str, Callable[[Critic, Tensor, Tensor], Tensor | list[int]]]] = {
    "deepwsd": {
        "score_not_as_loss": _test_form,
        "downsampling_factor": lambda critic, x, score: [critic.factor(x)],
    },
}
