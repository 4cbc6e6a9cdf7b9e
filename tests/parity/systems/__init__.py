"""How the cases of every system are read; a case names its system itself, whatever its folder is called."""

from __future__ import annotations

from importlib import import_module

from ..run import System

__all__ = ["NOT_OURS", "system_of"]

_MODULES = {
    **dict.fromkeys(("lpips-alex", "lpips-squeeze", "lpips-vgg", "st-lpips-alex", "st-lpips-vgg"), "pairs"),
    **dict.fromkeys(("a-dists", "dists", "deepdc", "deepwsd", "pieapp"), "pairs"),
    **dict.fromkeys(("ahiq", "iqt", "iqa-conformer", "maniqa"), "tokens"),
    **dict.fromkeys(("censeoqoe_fr", "censeoqoe_nr"), "censeoqoe"),
    **dict.fromkeys(("ipassr", "multi_score_siqa", "nafssr"), "stereo"),
    **dict.fromkeys(("nu2net", "sguie_net"), "enhancers"),
    **dict.fromkeys(("tres", "tres_resnet18", "tres_resnet34"), "tres"),
    **{name: name for name in ("asna", "cdc", "classical", "dacnn", "dfss", "fpr", "hyperiqa", "monotonic", "radn")},
    "content-diverse-losses": "content_diverse",
    "ranksrgan_ranker": "ranker",
    "underwater_measures": "underwater",
    "uranker": "uranker",
}

NOT_OURS = {}


def system_of(name: str) -> System | None:
    """The readers of a system, if there are any."""
    if name not in _MODULES:
        return None
    module = import_module(f".{_MODULES[name]}", __name__)
    return module.SYSTEMS[name] if hasattr(module, "SYSTEMS") else module.SYSTEM
