"""How the cases of every system are read; a case names its system itself, whatever its folder is called."""

from __future__ import annotations

from ..run import System
from . import (
    asna,
    cdc,
    censeoqoe,
    classical,
    content_diverse,
    dacnn,
    dfss,
    fpr,
    hyperiqa,
    monotonic,
    pairs,
    radn,
    ranker,
    tokens,
    tres,
    underwater,
    uranker,
)

__all__ = ["NOT_OURS", "SYSTEMS"]

SYSTEMS: dict[str, System] = {
    **pairs.SYSTEMS,
    **tokens.SYSTEMS,
    **censeoqoe.SYSTEMS,
    **tres.SYSTEMS,
    "asna": asna.SYSTEM,
    "cdc": cdc.SYSTEM,
    "classical": classical.SYSTEM,
    "content-diverse-losses": content_diverse.SYSTEM,
    "dacnn": dacnn.SYSTEM,
    "dfss": dfss.SYSTEM,
    "fpr": fpr.SYSTEM,
    "hyperiqa": hyperiqa.SYSTEM,
    "monotonic": monotonic.SYSTEM,
    "radn": radn.SYSTEM,
    "ranksrgan_ranker": ranker.SYSTEM,
    "underwater_measures": underwater.SYSTEM,
    "uranker": uranker.SYSTEM,
}

NOT_OURS = {
    "ipassr": "a restorer of stereo pairs, not a critic; not implemented",
    "nafssr": "a restorer of stereo pairs, not a critic; not implemented",
    "nu2net": "a restorer of underwater images, not a critic; not implemented",
    "sguie_net": "a restorer of underwater images, not a critic; not implemented",
    "multi_score_siqa": "a critic of stereo pairs that is not implemented: its code has no licence to follow",
}
