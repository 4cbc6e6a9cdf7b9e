"""Rankings of enhanced versions of a scene, as in URankerSet, which ranks enhancements of the scenes of UIEB."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

from perceptloss.compare.folders import list_folder
from perceptloss.teach.data.opinion import Opinion
from perceptloss.teach.data.opinions import OpinionSet
from perceptloss.teach.data.release import Release
from perceptloss.teach.data.tables import read_rows

__all__ = ["read_ranks"]

_FLAT: Final = re.compile(r"(\d+)_?(\D.*)_(\d+)")  # scene, method, rank: 25_fusion_0 or 1225two_step_1
_IN_SCENE: Final = re.compile(r"(?:(.*)_)?(\d+)")  # method, rank
_SUFFIXES: Final = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


class _Version(NamedTuple):
    scene: str
    rank: int
    method: str | None
    image: Path


def read_ranks(root: str | Path, *, name: str = "uieb-ranks") -> OpinionSet:
    """Versions of scenes ranked by people; a lower rank is better.

    One of three layouts, the first that applies:
        `ranks.csv`         columns scene, image (path below the root), rank, and method, which may be absent
        scene folders       `SCENE/METHOD_RANK.png` or `SCENE/RANK.png`
        URankerSet          `SCENE_METHOD_RANK.png` in one folder, the number of the scene first, the first underscore
                            optional
    The opinion is 1 for the best version of a scene and 0 for the worst, and evenly spaced by rank between them;
    versions of equal rank share the mean of their places. It compares versions of one scene only. The content is the
    scene.

    Args:
        root: The folder.
        name: Of the data set.

    Raises:
        OpinionsError: listing names that fit no layout, missing pictures, and scenes with fewer than two versions or
            with all at one rank.
    """
    release = Release(name, root)
    versions = _from_table(release) if release.has("ranks.csv") else _from_names(release)
    scenes: dict[str, list[_Version]] = {}
    for version in versions:
        scenes.setdefault(version.scene, []).append(version)
    for scene, ranked in scenes.items():
        if len({version.rank for version in ranked}) < 2:
            release.problems.append(f"scene {scene}: {len(ranked)} versions at one rank; two ranks at least are needed")
        else:
            release.opinions += _opinions(ranked)
    if not versions:
        release.problems.append(f"expected ranks.csv or pictures ({', '.join(sorted(_SUFFIXES))}), found none")
    return release.finish((0, 1))


def _opinions(ranked: list[_Version]) -> list[Opinion]:
    ranks = sorted(version.rank for version in ranked)
    places = {rank: ranks.index(rank) + (ranks.count(rank) - 1) / 2 for rank in ranks}
    best, worst = places[ranks[0]], places[ranks[-1]]
    return [
        Opinion(
            version.image,
            (worst - places[version.rank]) / (worst - best),
            version.scene,
            distortion=version.method,
            level=version.rank,
        )
        for version in ranked
    ]


def _from_table(release: Release) -> list[_Version]:
    versions = []
    for row in read_rows(release.file("ranks.csv"), ("scene", "image", "rank")):
        rank = row.number("rank", release.problems)
        if rank != int(rank):
            release.problems.append(f"{row.where}: rank is {rank}, expected a whole number")
        place = row.text("image", release.problems)
        image = release.root / place
        if place and not image.is_file():
            release.problems.append(f"{row.where}: {image} is missing")
        versions.append(_Version(row.text("scene", release.problems), int(rank), row.cells.get("method"), image))
    return versions


def _from_names(release: Release) -> list[_Version]:
    versions = []
    listing = list_folder(release.root, deep=True)
    release.problems += [f"{entry} {why}" for entry, why in listing.broken.items()]
    for image in (file for file in listing.files if file.suffix.lower() in _SUFFIXES):
        folder = image.parent.relative_to(release.root).as_posix()
        flat, inside = _FLAT.fullmatch(image.stem), _IN_SCENE.fullmatch(image.stem)
        if folder == "." and flat:
            versions.append(_Version(flat[1], int(flat[3]), flat[2], image))
        elif folder != "." and inside:
            versions.append(_Version(folder, int(inside[2]), inside[1], image))
        else:
            expected = "SCENE_METHOD_RANK" if folder == "." else "METHOD_RANK or RANK"
            release.problems.append(f"{image}: the name does not end in a rank; expected {expected}")
    return versions
