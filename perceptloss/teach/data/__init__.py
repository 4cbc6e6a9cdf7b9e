"""Opinions of people about pictures, from a CSV file or from the release of a data set.

    opinions = read_opinions("kadid10k", "path/to/kadid10k")
    parts = opinions.split({"train": 0.8, "val": 0.2}, seed=0)

Layouts: `csv`, `tid2013`, `kadid10k`, `live`, `csiq`, `pipal`, `koniq10k`, `spaq`, `clive`, `waterloo3d`, `uieb-ranks`.
What files each reads is in the docstring of its reader. Nothing is downloaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from perceptloss.errors import near
from perceptloss.teach.data.csv_file import read_csv
from perceptloss.teach.data.full_reference import read_csiq, read_kadid10k, read_pipal, read_tid2013, read_waterloo3d
from perceptloss.teach.data.live import read_live
from perceptloss.teach.data.no_reference import read_clive, read_koniq10k, read_spaq
from perceptloss.teach.data.opinion import Opinion, OpinionsError
from perceptloss.teach.data.opinions import OpinionSet
from perceptloss.teach.data.ranks import read_ranks

__all__ = ["LAYOUTS", "Opinion", "OpinionSet", "OpinionsError", "read_opinions"]

LAYOUTS: Final[Mapping[str, Callable[..., OpinionSet]]] = MappingProxyType(
    {
        "csv": read_csv,
        "tid2013": read_tid2013,
        "kadid10k": read_kadid10k,
        "live": read_live,
        "csiq": read_csiq,
        "pipal": read_pipal,
        "koniq10k": read_koniq10k,
        "spaq": read_spaq,
        "clive": read_clive,
        "waterloo3d": read_waterloo3d,
        "uieb-ranks": read_ranks,
    }
)


def read_opinions(layout: str, root: str | Path, **options: Any) -> OpinionSet:
    """Read a data set of opinions; every file it names is there, though not yet decoded.

    Args:
        layout: Name of the layout, see the module.
        root: The CSV file, or the folder of the release.
        options: Of the reader of that layout.

    Raises:
        OpinionsError: listing all problems: an unknown layout or option, missing files and columns, wrong numbers,
            missing pictures.
    """
    if layout not in LAYOUTS:
        raise OpinionsError(
            [f"unknown layout {layout!r}; expected one of {', '.join(LAYOUTS)}{near(layout, LAYOUTS)}"], "opinions"
        )
    known = [name for name in inspect.signature(LAYOUTS[layout]).parameters if name != "root"]
    unknown = [f"unknown option {name!r}{near(name, known)}" for name in options if name not in known]
    if unknown:
        raise OpinionsError([*unknown, f"options of {layout}: {', '.join(known) or 'none'}"], "opinions")
    return LAYOUTS[layout](root, **options)
