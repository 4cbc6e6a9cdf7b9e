"""LIVE, release 2: distorted pictures with their originals."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from perceptloss.teach.data.matlab import numbers, read_mat, texts
from perceptloss.teach.data.opinion import Opinion
from perceptloss.teach.data.opinions import OpinionSet
from perceptloss.teach.data.release import Folder, Release

__all__ = ["read_live"]

_FOLDERS: Final = ("jp2k", "jpeg", "wn", "gblur", "fastfading")  # in the order of the score vectors


def read_live(root: str | Path, *, realigned: bool = False, originals: bool = False) -> OpinionSet:
    """LIVE, release 2 (Sheikh et al., 2006): 982 pictures of 29 contents, 203 of them undistorted; 5 distortions.

    DMOS, lower better; 0..100, and a little beyond.

    Files: `dmos.mat` (dmos, orgs), `refnames_all.mat` (refnames_all), `refimgs/`, and the folders `jp2k`, `jpeg`, `wn`,
    `gblur`, `fastfading`, each with `img1.bmp`, `img2.bmp`, ... The vectors run over the folders in this order and over
    the numbers in each.

    Args:
        root: The folder of the release.
        realigned: Read `dmos_realigned.mat` (dmos_new, dmos_std, orgs), with deviations, instead of `dmos.mat`.
        originals: Keep the undistorted pictures among the distorted ones (`orgs` is 1), which have DMOS 0.

    Raises:
        OpinionsError: listing all problems.
    """
    release = Release("live", root)
    table = release.file("dmos_realigned.mat" if realigned else "dmos.mat")
    names, references = release.file("refnames_all.mat"), release.folder("refimgs")
    folders = {kind: release.folder(kind) for kind in _FOLDERS}
    release.stop()
    columns = read_mat(table, ("dmos_new", "orgs", "dmos_std") if realigned else ("dmos", "orgs"))
    scores, flags = numbers(columns[0]), numbers(columns[1])
    deviations = numbers(columns[2]) if realigned else [None] * len(scores)
    shown = texts(read_mat(names, ("refnames_all",))[0])
    places = [(kind, n) for kind, folder in folders.items() for n in range(1, _count(folder) + 1)]
    lengths = {"scores": len(scores), "orgs": len(flags), "std": len(deviations), "refnames_all": len(shown)}
    if set(lengths.values()) != {len(places)}:
        sizes = ", ".join(f"{kind} {_count(folder)}" for kind, folder in folders.items())
        release.problems.append(f"there are {len(places)} numbered pictures ({sizes}), but the vectors have {lengths}")
        release.stop()
    for (kind, n), original, mos, std, flag in zip(places, shown, scores, deviations, flags, strict=True):
        if originals or not flag:
            image, reference = folders[kind].get(f"img{n}.bmp"), references.get(original)
            release.opinions.append(Opinion(image, mos, Path(original).stem.lower(), reference, std, kind))
    return release.finish((min(0, *scores), max(100, *scores)), higher_better=False)


def _count(folder: Folder) -> int:
    """Highest number of a picture in a folder."""
    numbered = (re.fullmatch(r"img(\d+)\.bmp", file.name, re.IGNORECASE) for file in folder)
    return max((int(match[1]) for match in numbered if match), default=0)
