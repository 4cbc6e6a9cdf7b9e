"""The packages in use today, built offline with random trunks and called as in a training loop.

As shipped: `lpips` freezes its trunk but its heads ask for gradients (and are in evaluation
mode); `DISTS-pytorch` freezes its trunk but not alpha and beta, and needs `require_grad=True` to
send a gradient at all; `piq` freezes its trunk and keeps its weights as plain tensors, and its
DISTS shrinks images above 256 pixels first, hence does less work there, while its content and
style losses always run the whole trunk. In all of them x and y are passed plainly; y asks for no
gradient.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.memory import Loss

__all__ = ["PEERS", "offline"]

_LPIPS_CHANNELS = (64, 128, 256, 512, 512)
_DISTS_CHANNELS = 3 + sum(_LPIPS_CHANNELS)


def _state_of(url: str, *_: Any, **__: Any) -> Any:
    """Random weights in place of the files that piq would download."""
    if "dists" in url:
        return {name: 0.1 + 0.01 * torch.randn(1, _DISTS_CHANNELS, 1, 1) for name in ("alpha", "beta")}
    return [torch.rand(1, channels, 1, 1) / channels for channels in _LPIPS_CHANNELS]


@contextmanager
def offline() -> Iterator[None]:
    """Make the peers build random trunks instead of downloading."""
    import piq.perceptual
    import torchvision

    build = torchvision.models.vgg16

    def random_vgg16(*_: Any, **__: Any) -> torch.nn.Module:
        with torch.device("meta"):  # nobody here uses the classifier, nine tenths of the weights
            net = build(weights=None, init_weights=False)
        net.features.to_empty(device="cpu")
        for layer in net.features:
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                torch.nn.init.constant_(layer.get_parameter("bias"), 0.0)
        return net

    with (
        warnings.catch_warnings(),
        mock.patch.object(torchvision.models, "vgg16", random_vgg16),
        mock.patch.object(piq.perceptual, "vgg16", random_vgg16),
        mock.patch.object(torch.hub, "load_state_dict_from_url", _state_of),
    ):
        warnings.simplefilter("ignore")
        yield


def _lpips(net: str) -> Callable[[torch.device], Loss]:
    def build(device: torch.device) -> Loss:
        import lpips

        module = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).to(device)
        return lambda x, y: module(x, y, normalize=True).mean()

    return build


def _dists_pytorch(device: torch.device) -> Loss:
    from DISTS_pytorch import DISTS

    module = DISTS(load_weights=False).to(device)
    return lambda x, y: module(x, y, require_grad=True, batch_average=True)


def _piq(*names: str) -> Callable[[torch.device], Loss]:
    def build(device: torch.device) -> Loss:
        import piq

        made = {
            "LPIPS": lambda: piq.LPIPS(),
            "DISTS": lambda: piq.DISTS(),
            "ContentLoss": lambda: piq.ContentLoss(layers=("relu3_3",)),
            "StyleLoss": lambda: piq.StyleLoss(layers=("relu1_2", "relu2_2", "relu3_3", "relu4_3"), weights=[1.0] * 4),
        }
        modules = [made[name]().to(device) for name in names]

        def loss(x: Tensor, y: Tensor) -> Tensor:
            return torch.stack([module(x, y) for module in modules]).sum()

        return loss

    return build


PEERS: dict[str, Callable[[torch.device], Loss]] = {
    "lpips": _lpips("vgg"),
    "lpips alex": _lpips("alex"),
    "DISTS-pytorch": _dists_pytorch,
    "piq LPIPS": _piq("LPIPS"),
    "piq DISTS": _piq("DISTS"),
    "piq LPIPS+Content+Style": _piq("LPIPS", "ContentLoss", "StyleLoss"),
}
