"""UIQM by its critic, UCIQE by one made here, as the case has it: 8-bit files, so images exactly on their steps."""

from __future__ import annotations

from torch import Tensor

from perceptloss import get_card
from perceptloss.critics import uiqm
from perceptloss.critics.uciqe import UCIQE, chroma_term, contrast_term, saturation_term

from ..case import Row
from ..run import Reader, Run, System


def _image(run: Run, row: Row) -> Tensor:
    return (255 * run.image(row.input)).round() / 255


def _edges(run: Run, row: Row, colour: str) -> Tensor:
    return uiqm.enhancement(uiqm.weighted_edges(_image(run, row)))[:, "RGB".index(colour)]


def _uciqe(run: Run, row: Row, term: str | None) -> Tensor:
    critic = UCIQE(get_card("uciqe"), rounded=True)
    if term is None:
        return critic(_image(run, row))
    colours = critic.colours(_image(run, row))
    return contrast_term(colours, binned=True) if term == "contrast" else _TERMS[term](colours)


def _lab(run: Run, row: Row, channel: str) -> Tensor:
    colours = UCIQE(get_card("uciqe"), rounded=True).colours(_image(run, row))
    return colours[:, "Lab".index(channel)].mean((1, 2))


_TERMS = {"chroma": chroma_term, "saturation": saturation_term}
_READERS: dict[str, Reader] = {
    r"(uicm|uism|uiconm)": lambda run, row, name: getattr(uiqm, name)(_image(run, row)),
    r"uiqm|uiqm_as_called_in_float32": lambda run, row: run.critic(_image(run, row)),
    r"eme_of_weighted_edges_([RGB])": _edges,
    r"uciqe(?:_(chroma|contrast|saturation)_term)?": _uciqe,
    r"lab8_mean_([Lab])": _lab,
}
SYSTEM = System("uiqm", _READERS)
