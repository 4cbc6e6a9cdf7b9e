"""TID2013, KADID-10k, CSIQ and PIPAL: distorted pictures with their originals."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from perceptloss.teach.data.opinion import Opinion
from perceptloss.teach.data.opinions import OpinionSet
from perceptloss.teach.data.release import Release
from perceptloss.teach.data.tables import Row, number, read_lines, read_rows, whole

__all__ = ["read_csiq", "read_kadid10k", "read_pipal", "read_tid2013"]

_NUMBERED: Final = re.compile(r"(i\d+)_(\d+)_(\d+)\.\w+", re.IGNORECASE)  # content, distortion, level
_CSIQ_FOLDERS: Final = {"noise": "awgn", "jpeg 2000": "jpeg2000"}  # the others are named like the distortion


def read_tid2013(root: str | Path) -> OpinionSet:
    """TID2013 (Ponomarenko et al., 2015): 3000 pictures of 25 contents, 24 distortions at 5 levels.

    MOS 0..9, higher better.

    Files: `mos_with_names.txt` (lines of MOS and name of the picture), `distorted_images/iXX_YY_Z.bmp` (content,
    distortion, level), `reference_images/IXX.BMP`, and `mos_std.txt` (deviations in the same order) if it is there.

    Raises:
        OpinionsError: listing all problems.
    """
    release = Release("tid2013", root)
    lines = release.file("mos_with_names.txt")
    distorted, originals = release.folder("distorted_images"), release.folder("reference_images")
    release.stop()
    scored = read_lines(lines)
    deviations: list[float | None] = [None] * len(scored)
    if release.has("mos_std.txt"):
        found = read_lines(release.file("mos_std.txt"))
        deviations = [number(words[0], where, release.problems) for where, words in found]
        if len(deviations) != len(scored):
            release.problems.append(f"mos_std.txt has {len(deviations)} lines, but mos_with_names.txt {len(scored)}")
            release.stop()
    opinions = []
    for (where, words), std in zip(scored, deviations, strict=True):
        name = _NUMBERED.fullmatch(words[-1])
        if len(words) != 2 or name is None:
            release.problems.append(f"{where}: expected a MOS and a name like i01_02_3.bmp, got {' '.join(words)!r}")
            continue
        content, distortion, level = name.groups()
        opinions.append(
            Opinion(
                image=distorted.get(words[1]),
                reference=originals.get(f"{content}.bmp"),
                mos=number(words[0], where, release.problems),
                std=std,
                content=content.upper(),
                distortion=distortion,
                level=int(level),
                dataset="tid2013",
            )
        )
    return release.finish(opinions, higher_better=True, range=(0, 9))


def read_kadid10k(root: str | Path) -> OpinionSet:
    """KADID-10k (Lin et al., 2019): 10125 pictures of 81 contents, 25 distortions at 5 levels.

    DMOS 1..5, which here means higher better.

    Files: `dmos.csv` (columns dist_img, ref_img, dmos, var) and `images/` with the distorted pictures, `IXX_YY_ZZ.png`
    (content, distortion, level), and the originals, `IXX.png`. The deviation is the root of `var`.

    Raises:
        OpinionsError: listing all problems.
    """
    release = Release("kadid10k", root)
    table, images = release.file("dmos.csv"), release.folder("images")
    release.stop()
    opinions = []
    for row in read_rows(table, ("dist_img", "ref_img", "dmos", "var")):
        image, original = (row.text(column, release.problems) for column in ("dist_img", "ref_img"))
        name = _NUMBERED.fullmatch(image)
        variance = row.number("var", release.problems)
        if name is None:
            release.problems.append(f"{row.where}: expected a name like I01_02_03.png, got {image!r}")
        elif variance < 0:
            release.problems.append(f"{row.where}: var is {variance}, expected 0 or more")
        else:
            opinions.append(
                Opinion(
                    image=images.get(image),
                    reference=images.get(original),
                    mos=row.number("dmos", release.problems),
                    std=variance**0.5,
                    content=Path(original).stem.upper(),
                    distortion=name[2],
                    level=int(name[3]),
                    dataset="kadid10k",
                )
            )
    return release.finish(opinions, higher_better=True, range=(1, 5))


def read_csiq(root: str | Path) -> OpinionSet:
    """CSIQ (Larson and Chandler, 2010): 866 pictures of 30 contents, 6 distortions.

    DMOS 0..1, lower better.

    Files: `csiq.DMOS.xlsx` (sheet all_by_image), or that sheet exported as `csiq.DMOS.csv`, with the columns image,
    dst_type, dst_lev, dmos_std, dmos; `src_imgs/NAME.png`; and `dst_imgs/TYPE/NAME.TYPE.LEVEL.png` with the types awgn,
    blur, contrast, fnoise, jpeg and jpeg2000. The workbook is taken where both are there.

    Raises:
        OpinionsError: listing all problems.
    """
    release = Release("csiq", root)
    table = release.file("csiq.DMOS.xlsx", "csiq.DMOS.csv")
    distorted, originals = release.folder("dst_imgs", deep=True), release.folder("src_imgs")
    release.stop()

    def opinion(row: Row) -> Opinion:
        name = whole(row.text("image", release.problems))
        kind = row.text("dst_type", release.problems).lower()
        kind = _CSIQ_FOLDERS.get(kind, kind)
        level = int(row.number("dst_lev", release.problems))
        return Opinion(
            image=distorted.get(f"{name}.{kind}.{level}.png"),
            reference=originals.get(f"{name}.png"),
            mos=row.number("dmos", release.problems),
            std=row.number("dmos_std", release.problems),
            content=name,
            distortion=kind,
            level=level,
            dataset="csiq",
        )

    sheet = "all_by_image" if table.suffix.lower() == ".xlsx" else None
    rows = read_rows(table, ("image", "dst_type", "dst_lev", "dmos_std", "dmos"), sheet)
    return release.finish([opinion(row) for row in rows], higher_better=False, range=(0, 1))


def read_pipal(root: str | Path) -> OpinionSet:
    """PIPAL, training part (Gu et al., 2020): 23200 pictures of 200 contents, 116 distortions.

    Elo ratings, higher better.

    Files: `Train_Label/*.txt` (lines of name and rating with a comma between), `Train_Ref/AXXXX.bmp`, and
    `Train_Dist/` with the distorted pictures `AXXXX_YY_ZZ.bmp` in it or in folders below. The distortion is `YY_ZZ`;
    its numbers are no levels. The range is that of the ratings.

    Raises:
        OpinionsError: listing all problems.
    """
    release = Release("pipal", root)
    labels, originals = release.folder("Train_Label"), release.folder("Train_Ref")
    distorted = release.folder("Train_Dist", deep=True)
    release.stop()
    opinions = []
    for where, words in (line for file in labels for line in read_lines(file)):
        name = re.fullmatch(r"(\w+?)_(\d+_\d+)\.\w+", words[0])
        if len(words) != 2 or name is None:
            found = ",".join(words)
            release.problems.append(f"{where}: expected a name like A0001_00_00.bmp and a rating, got {found!r}")
            continue
        opinions.append(
            Opinion(
                image=distorted.get(words[0]),
                reference=originals.get(f"{name[1]}.bmp"),
                mos=number(words[1], where, release.problems),
                std=None,
                content=name[1],
                distortion=name[2],
                level=None,
                dataset="pipal",
            )
        )
    if not opinions:
        release.problems.append(f"{labels.path} has no .txt file with ratings")
    ratings = [opinion.mos for opinion in opinions]
    release.stop()
    return release.finish(opinions, higher_better=True, range=(min(ratings), max(ratings)))
