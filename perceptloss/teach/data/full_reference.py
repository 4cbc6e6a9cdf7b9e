"""TID2013, KADID-10k, CSIQ, PIPAL and Waterloo-IVC 3D: distorted pictures, or stereo pairs, with their originals."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from perceptloss.teach.data.opinion import Opinion
from perceptloss.teach.data.opinions import OpinionSet
from perceptloss.teach.data.release import Release
from perceptloss.teach.data.tables import number, read_lines, read_rows, whole

__all__ = ["read_csiq", "read_kadid10k", "read_pipal", "read_tid2013", "read_waterloo3d"]

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
    for (where, words), std in zip(scored, deviations, strict=True):
        name = _NUMBERED.fullmatch(words[-1])
        if len(words) != 2 or name is None:
            release.problems.append(f"{where}: expected a MOS and a name like i01_02_3.bmp, got {' '.join(words)!r}")
            continue
        content, distortion, level = name.groups()
        mos = number(words[0], where, release.problems)
        image, reference = distorted.get(words[1]), originals.get(f"{content}.bmp")
        release.opinions.append(Opinion(image, mos, content.upper(), reference, std, distortion, int(level)))
    return release.finish((0, 9))


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
    for row in read_rows(table, ("dist_img", "ref_img", "dmos", "var")):
        image, original = (row.text(column, release.problems) for column in ("dist_img", "ref_img"))
        name = _NUMBERED.fullmatch(image)
        variance = row.number("var", release.problems)
        if name is None:
            release.problems.append(f"{row.where}: expected a name like I01_02_03.png, got {image!r}")
        elif variance < 0:
            release.problems.append(f"{row.where}: var is {variance}, expected 0 or more")
        else:
            mos, content = row.number("dmos", release.problems), Path(original).stem.upper()
            files, std = (images.get(image), images.get(original)), variance**0.5
            release.opinions.append(Opinion(files[0], mos, content, files[1], std, name[2], int(name[3])))
    return release.finish((1, 5))


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

    sheet = "all_by_image" if table.suffix.lower() == ".xlsx" else None
    for row in read_rows(table, ("image", "dst_type", "dst_lev", "dmos_std", "dmos"), sheet):
        name = whole(row.text("image", release.problems))
        kind = row.text("dst_type", release.problems).lower()
        kind = _CSIQ_FOLDERS.get(kind, kind)
        level = int(row.number("dst_lev", release.problems))
        mos, std = (row.number(column, release.problems) for column in ("dmos", "dmos_std"))
        image, reference = distorted.get(f"{name}.{kind}.{level}.png"), originals.get(f"{name}.png")
        release.opinions.append(Opinion(image, mos, name, reference, std, kind, level))
    return release.finish((0, 1), higher_better=False)


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
    for where, words in (line for file in labels for line in read_lines(file)):
        name = re.fullmatch(r"(\w+?)_(\d+_\d+)\.\w+", words[0])
        if len(words) != 2 or name is None:
            found = ",".join(words)
            release.problems.append(f"{where}: expected a name like A0001_00_00.bmp and a rating, got {found!r}")
            continue
        rating = number(words[1], where, release.problems)
        reference = originals.get(f"{name[1]}.bmp")
        release.opinions.append(Opinion(distorted.get(words[0]), rating, name[1], reference, distortion=name[2]))
    if not release.opinions:
        release.problems.append(f"{labels.path} has no .txt file with ratings")
    release.stop()
    ratings = [opinion.mos for opinion in release.opinions]
    return release.finish((min(ratings), max(ratings)))


def read_waterloo3d(root: str | Path) -> OpinionSet:
    """Waterloo-IVC 3D, phase I or II (Wang et al., 2015): stereo pairs, symmetric and not; MOS 0..100, higher better.

    Files: the pictures of the stereo session, `3D/Session3DIQ/` or `Session3DIQ/`, numbered `N0001.png` and so on, the
    two views side by side, left one first; and `mos.csv`, which is not part of the release: put its scores into these
    columns,
        image, reference    numbers of the judged pair and of its undistorted original, such as N0002 and N0001, with
                            or without .png
        stereo              MOS of the pair
        std, distortion     of the pair; both columns may be absent
    The content is the original.

    Raises:
        OpinionsError: listing all problems.
    """
    release = Release("waterloo3d", root)
    table = release.file("mos.csv")
    images = release.folder("3D/Session3DIQ", "Session3DIQ")
    release.stop()
    for row in read_rows(table, ("image", "reference", "stereo")):
        names = (row.text(column, release.problems) for column in ("image", "reference"))
        image, reference = (images.get(f"{name.lower().removesuffix('.png')}.png") for name in names)
        mos, std = row.number("stereo", release.problems), row.optional("std", release.problems)
        kind, content = row.cells.get("distortion"), reference.stem.upper()
        pair = Opinion(image, mos, content, reference, std, kind, image_right=image, reference_right=reference)
        release.opinions.append(pair)
    return release.finish((0, 100))
