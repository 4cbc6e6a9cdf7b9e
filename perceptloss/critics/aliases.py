"""Names that users of pyiqa, piq, torchmetrics and BasicSR type, and what they mean here."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from functools import cache

from perceptloss.errors import UnknownCritic

__all__ = ["canonical"]

_log = logging.getLogger(__name__)

# critic, what it is, and names of it in small letters and figures, without `loss` behind
_NAMES = (
    ("lpips-alex", "on AlexNet, as in pyiqa, torchmetrics and the lpips package; LPIPS of piq is 'lpips-vgg'", "lpips"),
    ("lpips-alex", "as in torchmetrics", "learnedperceptualimagepatchsimilarity"),
    (
        "ssim-full",
        "mean of the RGB channels at full resolution; SSIM of their Y channel is another number",
        "ssimc structuralsimilarityindexmeasure calculatessim",
    ),
    ("st-lpips-alex", "on AlexNet, as in pyiqa and its authors' package", "stlpips"),
    ("ms-ssim", "", "multiscalessim multiscalestructuralsimilarityindexmeasure"),
    ("iw-ssim", "", "informationweightedssim"),
    ("ms-gmsd", "luminance only; with chroma it is 'ms-gmsdc'", "multiscalegmsd"),
    ("vif", "in the pixel domain", "vifp visualinformationfidelity"),
    ("psnr", "of RGB", "peaksignalnoiseratio calculatepsnr"),
    ("tv", "root of the sum of squares, as piq's default; that of torchmetrics is 'tv-l1'", "totalvariation"),
    ("niqe", "with the pristine statistics of the authors' release, the only one here", "niqematlab calculateniqe"),
    ("brisque", "with the support vectors of the authors' release, the only one here", "brisquematlab"),
    ("dists", "", "deepimagestructureandtexturesimilarity"),
    ("vgg-content", "at relu3_3 of VGG16; layers and norms of others differ", "content"),
    ("perceptual", "of VGG19 before its ReLUs, as in BasicSR and ESRGAN", "vggperceptual"),
    ("musiq", "taught on KonIQ-10k, unless you give it another file of its authors", "musiqkoniq"),
    ("package:cvvdp", "through its own package", "cvvdp colorvideovdp"),
    ("vgg-style", "squared difference of Gram matrices of VGG16", "style"),
)
_ALIASES = {name: (critic, note) for critic, note, names in _NAMES for name in names.split()}

_OPINIONS = "near it are 'maniqa', 'hyperiqa' and 'tres', learned from opinions too, and 'mini-nr', which ships ready"
_FEATURES = "near it are 'lpips-vgg', 'dists' and 'ahiq', which compare deep features with the reference"
_SETS = (
    "it compares sets of images; critics score one image at a time. `perceptloss compare --set-judges` has fid, kid "
    "and cmmd"
)
_ABSENT = {
    "psnry": "near it is 'psnr', of RGB; where systems are compared, psnr-y is that of BT.601 luma",
    **dict.fromkeys(("pi", "nrqm"), "near it is 'ranker', which learned the order in which it puts results"),
    **dict.fromkeys(("fid", "sfid", "kid", "cmmd", "inceptionscore", "frechetinceptiondistance"), _SETS),
    **dict.fromkeys(("lpips+", "lpipsvgg+", "ckdn", "wadiqamfr"), _FEATURES),
    **dict.fromkeys(("liqe", "unique", "qalign", "qualiclip", "wadiqamnr", "laionaes"), _OPINIONS),
    "clipiqa+": "near it is 'clip-iqa', with prompts that were not learned",
    "vmaf": "`perceptloss vmaf` scores by ffmpeg, and `perceptloss compare --scores-from` joins what it says",
    "fgresq": "its authors state no licence for code or weights; near it are 'a-fine' and 'maniqa'",
    **dict.fromkeys((f"musiq{kind}" for kind in ("ava", "paq2piq", "spaq")), "'musiq' reads that file of its authors"),
}


def canonical(name: str, known: Iterable[str]) -> str:
    """The registered name of a critic; names that are not known under any spelling come back as they are.

    Capitals, hyphens and underscores do not matter. What a foreign name means here is logged once.

    Raises:
        UnknownCritic: naming what is near, for a critic that other libraries have.
    """
    spelt = {_squeezed(other): other for other in known}
    key = _squeezed(name)
    if name in spelt.values():
        return name
    if key in _ABSENT:
        raise UnknownCritic(f"there is no critic {name!r} here: {_ABSENT[key]}. `perceptloss list` shows all.")
    found, note = _ALIASES.get(key, (spelt.get(key, name), ""))
    if found != name:
        _tell(name, found, note)
    return found


def _squeezed(name: str) -> str:
    return re.sub("[^a-z0-9+]", "", name.lower()).removesuffix("loss")


@cache
def _tell(name: str, found: str, note: str) -> None:
    _log.info("%r is %r here%s", name, found, f": {note}" if note else "")
