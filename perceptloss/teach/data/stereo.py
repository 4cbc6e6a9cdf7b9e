"""Waterloo-IVC 3D: stereo pairs, with opinions about the pair and about each view."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from perceptloss.teach.data.opinion import Opinion
from perceptloss.teach.data.opinions import OpinionSet
from perceptloss.teach.data.release import Folder, Release
from perceptloss.teach.data.tables import Row, read_rows

__all__ = ["read_waterloo3d"]

_COLUMNS: Final = ("image", "reference", "stereo", "left", "right")


def read_waterloo3d(root: str | Path) -> OpinionSet:
    """Waterloo-IVC 3D, phase I or II (Wang et al., 2015): stereo pairs, symmetric and not; MOS 0..100, higher better.

    Files: the pictures of the stereo session, `3D/Session3DIQ/` or `Session3DIQ/`, numbered `N0001.png` and so on, the
    two views side by side, left one first; and `mos.csv`, which is not part of the release: put its scores into these
    columns,
        image, reference    numbers of the judged pair and of its undistorted original, such as N0002 and N0001, with
                            or without .png
        stereo, left, right MOS of the pair and of its views alone; those of the views may be empty
        std, distortion     of the pair; both columns may be absent
    The content is the original.

    Raises:
        OpinionsError: listing all problems.
    """
    release = Release("waterloo3d", root)
    table = release.file("mos.csv")
    images = release.folder("3D/Session3DIQ", "Session3DIQ")
    release.stop()
    rows = read_rows(table, _COLUMNS)
    opinions = [_opinion(row, images, release.problems) for row in rows]
    return release.finish(opinions, higher_better=True, range=(0, 100))


def _opinion(row: Row, images: Folder, problems: list[str]) -> Opinion:
    image, reference = (images.get(_with_ending(row.text(column, problems))) for column in ("image", "reference"))
    return Opinion(
        image=image,
        reference=reference,
        mos=row.number("stereo", problems),
        std=row.optional("std", problems),
        content=reference.stem.upper(),
        distortion=row.cells.get("distortion"),
        level=None,
        dataset="waterloo3d",
        image_right=image,
        reference_right=reference,
        mos_left=row.optional("left", problems),
        mos_right=row.optional("right", problems),
    )


def _with_ending(name: str) -> str:
    return name if name.lower().endswith(".png") else f"{name}.png"
