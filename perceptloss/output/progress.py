"""Progress bars on stderr, for people at a terminal."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from perceptloss.output.names import visible

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["bar"]

_RANKS: Final = ("RANK", "LOCAL_RANK")  # as torchrun and Accelerate set them


def bar(what: str, total: int, *, show: bool | None = None, done: int = 0, unit: str = "it") -> tqdm[NoReturn]:
    """A bar, to be used in `with`; `update(n)` moves it on.

    Only the first process of a job shows one, and unless `show` says otherwise only on a terminal. On a terminal it is
    gone when it is done.

    Args:
        what: Stands before it.
        total: Where it ends.
        show: True, False, or None for terminals only.
        done: Where it begins.
        unit: Of what is counted; `B` shows kB and MB.
    """
    from tqdm import tqdm

    is_seen = sys.stderr is not None and all(os.environ.get(rank, "0") == "0" for rank in _RANKS)
    return tqdm(
        desc=visible(what),
        total=total,
        initial=done,
        unit=unit,
        unit_scale=unit == "B",
        disable=(None if show is None else not show) if is_seen else True,
        leave=bool(show),
        dynamic_ncols=True,
    )
