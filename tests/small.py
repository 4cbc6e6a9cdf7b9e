"""Small builds of critics that are too large to be tested everywhere at their published size.

A small build is the published class with smaller widths and a smaller side, under the published
card but for `min_size`. The published size itself is run by the parity tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch

from perceptloss import get_card
from perceptloss.card import Card
from perceptloss.critic import Critic
from perceptloss.registry import find_entry

__all__ = ["PACKAGES", "SMALL", "base_of", "build_small", "is_small", "kind_of", "small_card"]


def small_card(name: str, min_size: int) -> Card:
    """The published card of a critic that takes smaller images."""
    return replace(get_card(name), min_size=min_size)


def _iqt(name: str) -> Critic:
    from perceptloss.critics import iqt

    form = {"iqt": iqt.IQT, "iqt-port": iqt.MaskedIQT}[name]
    return form(small_card(name, 64), side=64, layers=2, width=16, heads=2, hidden=32, head=16, blocks=2)


def _afine() -> Critic:
    from perceptloss.critics.afine import AFINE

    return AFINE(get_card("a-fine"), width=16, layers=2, heads=2, hidden=8)


def _arniqa() -> Critic:
    from perceptloss.critics.arniqa import ARNIQA

    return ARNIQA(get_card("arniqa"), widths=(8, 10, 12, 16))


def _clip_iqa() -> Critic:
    from perceptloss.critics.clip_iqa import CLIPIQA

    return CLIPIQA(get_card("clip-iqa"), width=8, embedding=16)


def _musiq() -> Critic:
    from perceptloss.critics.musiq import MUSIQ

    return MUSIQ(get_card("musiq"), sides=(32, 64), width=16, layers=2, heads=2, inner=24)


def _paq2piq() -> Critic:
    from perceptloss.critics.paq2piq import PaQ2PiQ

    return PaQ2PiQ(get_card("paq2piq"), widths=(8, 10, 12, 16), hidden=16)


def _nima() -> Critic:
    from perceptloss.critics.nima import NIMA

    return NIMA(small_card("nima", 32), side=32)


def _ilniqe() -> Critic:
    from perceptloss.critics.ilniqe.critic import ILNIQE

    return ILNIQE(get_card("ilniqe"), side=72, block=24, components=12)


def _topiq(name: str) -> Critic:
    from perceptloss.critics.topiq import TOPIQ

    return TOPIQ(get_card(name), widths=(8, 10, 12, 16), width=16, heads=2)


def _ahiq() -> Critic:
    from perceptloss.critics.ahiq import AHIQ

    widths = {"embed_dim": 48, "heads": 3, "cnn": 8, "deform_hidden": 16, "width": 12, "hidden": (24, 16)}
    return AHIQ(small_card("ahiq", 64), side=64, **widths)


def _iqa_conformer() -> Critic:
    from perceptloss.critics.iqa_conformer import IQAConformer

    return IQAConformer(small_card("iqa-conformer", 64), side=64, width=16, heads=2, blocks=2)


def _asna() -> Critic:
    from perceptloss.critics.asna import ASNA

    widths = {"encoder": (4, 6, 8, 10), "decoder": (10, 8, 6, 4), "reduced": 8, "attended": 6, "hidden": 16}
    return ASNA(small_card("asna", 64), side=64, **widths)


def _wresnet() -> Critic:
    from perceptloss.critics.wresnet import WResNet

    return WResNet(get_card("wresnet"), widths=(8, 10, 12, 12, 16), hidden=16)


def _radn() -> Critic:
    from perceptloss.critics.radn import RADN

    return RADN(get_card("radn"), widths=(8, 10, 12, 12, 16), inner=8, hidden=16)


def _gsn() -> Critic:
    from perceptloss.critics.gsn import GSN

    return GSN(get_card("gsn"), widths=(8, 10, 12, 16), width=12, fused=16, hidden=8)


def _unified(name: str) -> Critic:
    from perceptloss.critics.unified import UnifiedFR, UnifiedNR

    form = {"unified-fr": UnifiedFR, "unified-nr": UnifiedNR}[name]
    return form(get_card(name), net={"width": 16, "heads": 2, "inner": 32, "hidden": 8}, widths=(8, 10, 12, 16))


def _jspl() -> Critic:
    from perceptloss.critics.jspl.critic import JSPL

    return JSPL(get_card("jspl"), widths=(8, 12, 16, 16), attention=3, hidden=12)


def _fr_nr(name: str) -> Critic:
    from perceptloss.critics.fr_nr import FRNR, FRNRAdditive

    return (FRNR if name == "fr-nr" else FRNRAdditive)(get_card(name), depth=18, hidden=16)


def _maniqa() -> Critic:
    from perceptloss.critics.maniqa.critic import MANIQA

    widths = {"embed_dim": 24, "vit_heads": 3, "heads": 2, "hidden": 16}
    return MANIQA(small_card("maniqa", 64), side=64, tabs=1, **widths)


def _dacnn() -> Critic:
    from perceptloss.critics.dacnn import DACNN

    widths = {"stem": 8, "widths": (6, 8, 8, 10, 12, 12, 16), "top": 24, "width": 6, "hidden": 16}
    return DACNN(small_card("dacnn", 64), side=64, **widths)


def _uranker() -> Critic:
    from perceptloss.critics.uranker.critic import URanker

    return URanker(get_card("uranker"), dims=(16, 24, 24, 24), depth=1, parallel=2, ratio=2)


def _ddbnet() -> Critic:
    from perceptloss.critics.ddbnet import DDBNet

    return DDBNet(get_card("ddbnet"), widths=(8, 10, 12, 16), width=6, hidden=16, decomposition=8)


def _tres(name: str) -> Critic:
    from perceptloss.critics.tres import TReS

    depth = {"tres": 50, "tres-resnet34": 34, "tres-resnet18": 18}[name]
    return TReS(small_card(name, 64), side=64, depth=depth, widths=(8, 12, 16, 28), heads=4, hidden=16)


def _hyperiqa() -> Critic:
    from perceptloss.critics.hyperiqa import HyperIQA

    widths = {"widths": (8, 10, 12, 16), "local": 4, "content": (24, 16, 12), "target": (20, 12, 8, 4, 3)}
    return HyperIQA(small_card("hyperiqa", 64), side=64, **widths)


def _monotonic(name: str) -> Critic:
    from perceptloss.critics.monotonic import Monotonic, StrictMonotonic

    if name == "monotonic":
        return Monotonic(get_card(name), widths=(8, 10, 12, 16), hidden=(32, 16))
    return StrictMonotonic(get_card(name), compact=8, widths=(8, 10, 12, 16), hidden=(32, 16))


def _censeoqoe(name: str) -> Critic:
    from perceptloss.critics.censeoqoe import CenseoQoEFR, CenseoQoENR

    form = {"censeoqoe-fr": CenseoQoEFR, "censeoqoe-nr": CenseoQoENR}[name]
    return form(get_card(name), widths=(8, 10, 12, 16), hidden=32)


def _multi_score_siqa() -> Critic:
    from perceptloss.critics.multi_score_siqa import MultiScoreSIQA

    widths = {"widths": (6, 6, 8, 8, 12), "hidden": (24, 16), "joined": 24}
    return MultiScoreSIQA(get_card("multi-score-siqa"), **widths)


def _stereo_srqa() -> Critic:
    from perceptloss.critics.stereo_srqa import StereoSRQA

    return StereoSRQA(get_card("stereo-srqa"), widths=(8, 12, 16), matched=8, hidden=12)


def _pmos(name: str) -> Critic:
    from perceptloss.critics.pmos import PMOS, PMOSMap

    form = {"pmos": PMOS, "pmos-map": PMOSMap}[name]
    return form(get_card(name), widths=(8, 10, 12, 16), width=12, context=10, hidden=8)


def _biqa4k(name: str) -> Critic:
    from perceptloss.critics.biqa4k.critic import BIQA4K, BIQA4KFR

    form = {"biqa4k": BIQA4K, "biqa4k-fr": BIQA4KFR}[name]
    return form(small_card(name, 32), side=32, widths=(8, 10, 12, 16), width=8, hidden=12)


def _reqa() -> Critic:
    from perceptloss.critics.reqa import REQA

    sizes = {"hidden": (4, 6, 8), "local": 16, "context": 80, "width": 24, "heads": 3, "inner": 20}
    return REQA(small_card("reqa", 64), side=64, widths=(8, 10, 12, 16), **sizes)


def _fpr(name: str) -> Critic:
    from perceptloss.critics.fpr.critic import FPR, FPRFeature

    return (FPR if name == "fpr" else FPRFeature)(get_card(name), width=16)


def _dfss(name: str) -> Critic:
    from perceptloss.critics.dfss.critic import DFSS, DFSSDeviation

    return (DFSS if name == "dfss" else DFSSDeviation)(get_card(name), width=8)


def _fdl() -> Critic:
    from perceptloss.critics.fdl import FDL

    return FDL(get_card("fdl"), num_proj=4, widths=(8, 10, 12, 16, 16))


def _fdl_dino() -> Critic:
    from perceptloss.critics.fdl import FDLDino

    sizes = {"embed_dim": 32, "depth": 3, "num_heads": 2}
    return FDLDino(get_card("fdl-dino"), depths=(0, 2), scales=(1.0, 0.5), num_proj=4, sizes=sizes)


def _ms_swd() -> Critic:
    from perceptloss.critics.ms_swd import MSSWD

    return MSSWD(get_card("ms-swd"), num_proj=32)


def _contextual() -> Critic:
    from perceptloss.critics.contextual import Contextual

    return Contextual(get_card("contextual"), widths=(8, 10, 12, 16, 16))


def _perceptual() -> Critic:
    from perceptloss.critics.perceptual import Perceptual

    return Perceptual(get_card("perceptual"), widths=(8, 10, 12, 16, 16))


def _dino() -> Critic:
    from perceptloss.critics.deep_features import Dino

    return Dino(get_card("dino"), depths=(0, 2), sizes={"embed_dim": 32, "depth": 3, "num_heads": 2})


def _convnext() -> Critic:
    from perceptloss.critics.deep_features import ConvNeXt

    return ConvNeXt(get_card("convnext"), depths=(0, 1, 2), sizes={"dims": (8, 10, 12, 16), "num_classes": 0})


# critic name -> its small build, which imports the critic's module itself
SMALL: dict[str, Callable[[], Critic]] = {
    "a-fine": _afine,
    "ahiq": _ahiq,
    "arniqa": _arniqa,
    "asna": _asna,
    "biqa4k": lambda: _biqa4k("biqa4k"),
    "biqa4k-fr": lambda: _biqa4k("biqa4k-fr"),
    "censeoqoe-fr": lambda: _censeoqoe("censeoqoe-fr"),
    "censeoqoe-nr": lambda: _censeoqoe("censeoqoe-nr"),
    "contextual": _contextual,
    "convnext": _convnext,
    "clip-iqa": _clip_iqa,
    "dacnn": _dacnn,
    "ddbnet": _ddbnet,
    "dfss": lambda: _dfss("dfss"),
    "dfss-deviation": lambda: _dfss("dfss-deviation"),
    "dino": _dino,
    "fdl": _fdl,
    "fdl-dino": _fdl_dino,
    "fpr": lambda: _fpr("fpr"),
    "fpr-feature": lambda: _fpr("fpr-feature"),
    "fr-nr": lambda: _fr_nr("fr-nr"),
    "fr-nr-additive": lambda: _fr_nr("fr-nr-additive"),
    "gsn": _gsn,
    "hyperiqa": _hyperiqa,
    "ilniqe": _ilniqe,
    "iqa-conformer": _iqa_conformer,
    "iqt": lambda: _iqt("iqt"),
    "iqt-port": lambda: _iqt("iqt-port"),
    "jspl": _jspl,
    "maniqa": _maniqa,
    "monotonic": lambda: _monotonic("monotonic"),
    "monotonic-strict": lambda: _monotonic("monotonic-strict"),
    "ms-swd": _ms_swd,
    "multi-score-siqa": _multi_score_siqa,
    "perceptual": _perceptual,
    "musiq": _musiq,
    "nima": _nima,
    "paq2piq": _paq2piq,
    "pmos": lambda: _pmos("pmos"),
    "pmos-map": lambda: _pmos("pmos-map"),
    "radn": _radn,
    "reqa": _reqa,
    "stereo-srqa": _stereo_srqa,
    "topiq-fr": lambda: _topiq("topiq-fr"),
    "topiq-nr": lambda: _topiq("topiq-nr"),
    "tres": lambda: _tres("tres"),
    "tres-resnet18": lambda: _tres("tres-resnet18"),
    "tres-resnet34": lambda: _tres("tres-resnet34"),
    "unified-fr": lambda: _unified("unified-fr"),
    "unified-nr": lambda: _unified("unified-nr"),
    "uranker": _uranker,
    "wresnet": _wresnet,
}


PACKAGES = {"package:cvvdp": "pycvvdp"}
"""Critics that other packages compute, in float32 whatever the images are, and the module that must be here."""


def build_small(name: str) -> Critic:
    """A frozen small build with seeded random weights, the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SMALL[name]().freeze()


def is_small(critic: Critic) -> bool:
    """Whether it takes smaller images than its published form."""
    return critic.card.name in SMALL and critic.card.min_size != get_card(critic.card.name).min_size


def _made_by(card: Card) -> object:
    build = find_entry(card.name).build
    while isinstance(build, partial):
        build = build.func
    return build


def base_of(card: Card) -> object:
    """The class from which that of a critic is derived."""
    made_by = _made_by(card)
    return made_by.__mro__[1] if isinstance(made_by, type) else made_by


def kind_of(card: Card) -> tuple[object, ...]:
    """The class, or function, that builds a critic, and what its card claims of size, batch, range and precision."""
    claims = (card.kind, card.channels, card.multiple_of, card.tiling, card.shape, card.better, card.bounds)
    return (_made_by(card), *claims, card.low_precision, card.couples_batch, card.identity)
