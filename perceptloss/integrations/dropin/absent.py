"""Losses of two hosts that nothing here means, and what is near them."""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["ABSENT", "Dialect"]

Dialect = Literal["trainner", "neosr"]
_HOSTS: Final = "it belongs to the host's adversarial training: keep the host's own"
ABSENT: Final[dict[Dialect, dict[str, str]]] = {
    "trainner": {
        "bcewithlogitsdiceloss": "it is of masks, not of images",
        "ganloss": _HOSTS,
        "multiscaleganloss": _HOSTS,
        "linedistillerloss": "near it is gradientvarianceloss",
        "perceptualanimeloss": "its network is not here; near it is perceptualloss",
        "topiqloss": "its weights may not be used commercially; near it are the critics dists and lpips-vgg",
    },
    "neosr": {
        "gan_loss": _HOSTS,
    },
}
