"""KonIQ-10k, SPAQ and the LIVE in-the-wild challenge: photographs as taken, without originals."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from perceptloss.teach.data.matlab import numbers, read_mat, texts
from perceptloss.teach.data.opinion import Opinion
from perceptloss.teach.data.opinions import OpinionSet
from perceptloss.teach.data.release import Release
from perceptloss.teach.data.tables import read_rows

__all__ = ["read_clive", "read_koniq10k", "read_spaq"]

_KONIQ: Final = "koniq10k_scores_and_distributions"
_SPAQ: Final = "MOS and Image attribute scores"
_TRAINING: Final = frozenset(f"t{n}.bmp" for n in range(1, 8))


def read_koniq10k(
    root: str | Path,
    *,
    size: Literal["1024x768", "512x384"] = "1024x768",
    scores: Literal["MOS", "MOS_zscore"] = "MOS",
) -> OpinionSet:
    """KonIQ-10k (Hosu et al., 2020): 10073 photographs; higher better.

    Files: `koniq10k_scores_and_distributions.csv` (columns image_name, MOS, SD, MOS_zscore), also in a folder of that
    name, and the folder `1024x768` or `512x384` with the photographs, also in `koniq10k_1024x768` or
    `koniq10k_512x384`, as the archives unpack.

    Args:
        root: The folder of the release.
        size: Which photographs.
        scores: `MOS`, 1..5 with deviations, or `MOS_zscore`, 0..100 without.

    Raises:
        OpinionsError: listing all problems.
    """
    release = Release("koniq10k", root)
    if size not in ("1024x768", "512x384"):
        release.problems.append(f"size must be 1024x768 or 512x384, got {size!r}")
    if scores not in ("MOS", "MOS_zscore"):
        release.problems.append(f"scores must be MOS or MOS_zscore, got {scores!r}")
    release.stop()
    table = release.file(f"{_KONIQ}.csv", f"{_KONIQ}/{_KONIQ}.csv")
    images = release.folder(size, f"koniq10k_{size}/{size}")
    release.stop()
    for row in read_rows(table, ("image_name", "SD", scores)):
        image = images.get(row.text("image_name", release.problems))
        std = row.number("sd", release.problems) if scores == "MOS" else None
        mos = row.number(scores.lower(), release.problems)
        release.opinions.append(Opinion(image, mos, image.stem, std=std))
    return release.finish((1, 5) if scores == "MOS" else (0, 100))


def read_spaq(root: str | Path) -> OpinionSet:
    """SPAQ (Fang et al., 2020): 11125 photographs of smartphones; MOS 0..100, higher better.

    Files: `Annotations/MOS and Image attribute scores.xlsx`, or its first sheet exported as .csv, with the columns
    Image name and MOS, and `TestImage/`. The workbook is taken where both are there.

    Raises:
        OpinionsError: listing all problems.
    """
    release = Release("spaq", root)
    table = release.file(f"Annotations/{_SPAQ}.xlsx", f"Annotations/{_SPAQ}.csv")
    images = release.folder("TestImage")
    release.stop()
    for row in read_rows(table, ("Image name", "MOS")):
        image = images.get(row.text("image name", release.problems))
        release.opinions.append(Opinion(image, row.number("mos", release.problems), image.stem))
    return release.finish((0, 100))


def read_clive(root: str | Path, *, training: bool = False) -> OpinionSet:
    """LIVE in-the-wild challenge (Ghadiyaram and Bovik, 2016): 1162 photographs; MOS 0..100, higher better.

    Files: `Data/AllImages_release.mat`, `Data/AllMOS_release.mat`, `Data/AllStdDev_release.mat` (a vector each, of the
    same name as the file) and `Images/`, with the seven pictures that trained the observers
    in it or in `Images/trainingImages`.

    Args:
        root: The folder of the release.
        training: Keep the seven training pictures, `t1.bmp` to `t7.bmp`.

    Raises:
        OpinionsError: listing all problems.
    """
    release = Release("clive", root)
    names = [f"All{what}_release" for what in ("Images", "MOS", "StdDev")]
    tables = [release.file(f"Data/{name}.mat") for name in names]
    images = release.folder("Images", deep=True)
    release.stop()
    listed, scores, deviations = (read_mat(table, (name,))[0] for table, name in zip(tables, names, strict=True))
    if not listed.size == scores.size == deviations.size:
        release.problems.append(
            f"{names[0]} has {listed.size} entries, {names[1]} {scores.size}, {names[2]} {deviations.size}"
        )
        release.stop()
    for name, mos, std in zip(texts(listed), numbers(scores), numbers(deviations), strict=True):
        if training or name.lower() not in _TRAINING:
            image = images.get(name)
            release.opinions.append(Opinion(image, mos, image.stem, std=std))
    return release.finish((0, 100))
