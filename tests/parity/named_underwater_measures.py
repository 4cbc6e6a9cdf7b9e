"""How the case of the two underwater measures is read: UIQM by the critic of the system, UCIQE by one made here.

The case judges 8-bit files, so the images are put exactly on their steps, and UCIQE rounds its Lab.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from perceptloss import get_card
from perceptloss.critic import Critic
from perceptloss.critics import uiqm
from perceptloss.critics.uciqe import UCIQE, chroma_term, contrast_term, saturation_term

from .named import NamedCase, Reader, System


def _on_steps(case: NamedCase, name: str) -> Tensor:
    return (255 * case.image(name)).round() / 255


def _of_uiqm(part: Callable[[Tensor], Tensor]) -> Reader:
    return lambda critic, case, name: part(_on_steps(case, name))


def _of_uciqe(part: Callable[[UCIQE, Tensor], Tensor]) -> Reader:
    return lambda critic, case, name: part(UCIQE(get_card("uciqe"), rounded=True), _on_steps(case, name))


def _score(critic: Critic, case: NamedCase, name: str) -> Tensor:
    return critic(_on_steps(case, name))


SYSTEM = System(
    "uiqm",
    readers={
        "uicm": _of_uiqm(uiqm.uicm),
        "uism": _of_uiqm(uiqm.uism),
        "uiconm": _of_uiqm(uiqm.uiconm),
        "uiqm": _score,
        "uiqm_as_called_in_float32": _score,
        **{
            f"eme_of_weighted_edges_{colour}": _of_uiqm(lambda x, n=n: uiqm.enhancement(uiqm.weighted_edges(x))[:, n])
            for n, colour in enumerate("RGB")
        },
        "uciqe_chroma_term": _of_uciqe(lambda critic, x: chroma_term(critic.colours(x))),
        "uciqe_contrast_term": _of_uciqe(lambda critic, x: contrast_term(critic.colours(x), binned=True)),
        "uciqe_saturation_term": _of_uciqe(lambda critic, x: saturation_term(critic.colours(x))),
        "uciqe": _of_uciqe(lambda critic, x: critic(x)),
        **{
            f"lab8_mean_{channel}": _of_uciqe(lambda critic, x, n=n: critic.colours(x)[:, n].mean((1, 2)))
            for n, channel in enumerate("Lab")
        },
    },
)
