"""Tiny releases of data sets of opinions, in the layouts in which they are published."""

from __future__ import annotations

import zipfile
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image
from scipy.io import savemat


def picture(path: Path, seed: int = 0, size: tuple[int, int] = (16, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def mat(path: Path, **variables: object) -> Path:
    """A MATLAB file; lists of text become cell arrays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {name: cells(v) if v and isinstance(v[0], str) else np.array(v) for name, v in variables.items()})
    return path


def cells(texts: list[str]) -> np.ndarray:
    array = np.empty((1, len(texts)), dtype=object)
    array[0] = texts
    return array


def xlsx(path: Path, **sheets: list[list[object]]) -> Path:
    """A workbook: text as shared strings, except in the last column, where it is inline; None is an empty cell."""
    path.parent.mkdir(parents=True, exist_ok=True)
    main = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    links = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    shared: list[str] = []
    with zipfile.ZipFile(path, "w") as archive:
        names = "".join(f'<sheet name="{name}" sheetId="{n}" r:id="rId{n}"/>' for n, name in enumerate(sheets, 1))
        archive.writestr("xl/workbook.xml", f'<workbook {main} xmlns:r="{links}"><sheets>{names}</sheets></workbook>')
        targets = "".join(
            f'<Relationship Id="rId{n}" Target="worksheets/s{n}.xml"/>' for n in range(1, len(sheets) + 1)
        )
        archive.writestr("xl/_rels/workbook.xml.rels", f'<Relationships xmlns="r">{targets}</Relationships>')
        for n, rows in enumerate(sheets.values(), 1):
            body = "".join(_row(r, row, shared) for r, row in enumerate(rows, 1))
            archive.writestr(f"xl/worksheets/s{n}.xml", f"<worksheet {main}><sheetData>{body}</sheetData></worksheet>")
        entries = "".join(f"<si><r><t>{text[:1]}</t></r><r><t>{text[1:]}</t></r></si>" for text in shared)
        archive.writestr("xl/sharedStrings.xml", f"<sst {main}>{entries}</sst>")
    return path


def _row(number: int, row: list[object], shared: list[str]) -> str:
    parts = []
    for column, value in enumerate(row):
        place = f'r="{chr(ord("A") + column)}{number}"'
        if isinstance(value, str) and column == len(row) - 1:
            parts.append(f'<c {place} t="inlineStr"><is><t>{escape(value)}</t></is></c>')
        elif isinstance(value, str):
            shared.append(escape(value))
            parts.append(f'<c {place} t="s"><v>{len(shared) - 1}</v></c>')
        elif value is not None:
            parts.append(f"<c {place}><v>{value}</v></c>")
    return f'<row r="{number}">{"".join(parts)}</row>'


def tid2013(root: Path) -> Path:
    scores = ("5.5 I01_01_1.bmp", "4.25 i01_24_5.bmp", "0.5 i02_03_2.bmp")
    write(root / "mos_with_names.txt", *scores)
    write(root / "mos_std.txt", "0.1", "0.2", "0.3")
    for name in ("I01_01_1.BMP", "i01_24_5.bmp", "i02_03_2.bmp"):
        picture(root / "Distorted_Images" / name)
    picture(root / "reference_images" / "I01.BMP")
    picture(root / "reference_images" / "i02.bmp")
    return root


def kadid10k(root: Path) -> Path:
    write(
        root / "dmos.csv", "dist_img,ref_img,dmos,var", "I01_01_01.png,I01.png,4.57,0.49", "I02_25_05.png,I02.png,1,0"
    )
    for name in ("I01", "I02", "I01_01_01", "I02_25_05"):
        picture(root / "images" / f"{name}.png")
    return root


def live(root: Path) -> Path:
    """Two pictures a folder, of which the second in wn is an original."""
    names = ["bikes.bmp", "ocean.bmp"] * 5
    scores = [40.0, 50.0, 31.5, 20.0, 10.0, 0.0, 99.0, 60.0, 70.0, 80.0]
    flags = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    mat(root / "dmos.mat", dmos=[scores], orgs=[flags])
    mat(root / "dmos_realigned.mat", dmos_new=[[s + 10 for s in scores]], dmos_std=[[1.5] * 10], orgs=[flags])
    mat(root / "refnames_all.mat", refnames_all=names)
    for folder in ("jp2k", "jpeg", "wn", "gblur", "fastfading"):
        write(root / folder / "info.txt", "ocean.bmp img2.bmp 0.5", "", "bikes.bmp img1.bmp 1.2")
        for n in (1, 2):
            picture(root / folder / f"img{n}.bmp")
    for name in names[:2]:
        picture(root / "refimgs" / name)
    return root


CSIQ_SHEET = [
    ["CSIQ subjective scores", None, None, None, None, None, None],
    [None, "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"],
    [None, 1600, 1, "noise", 1, 0.061, 0.062],
    [None, "elk", 2, "jpeg 2000", 5, 0.1, 0.9],
    [None, "elk", 6, "contrast", 3, 0.2, 0.4],
    [None, None, None, None, None, None, None],
]


def csiq(root: Path) -> Path:
    xlsx(root / "csiq.DMOS.xlsx", summary=[["nothing"]], all_by_image=CSIQ_SHEET)
    for name in ("awgn/1600.AWGN.1", "jpeg2000/elk.jpeg2000.5", "contrast/elk.contrast.3"):
        picture(root / "dst_imgs" / f"{name}.png")
    for name in ("1600", "elk"):
        picture(root / "src_imgs" / f"{name}.png")
    return root


def pipal(root: Path) -> Path:
    write(root / "Train_Label" / "A0001.txt", "A0001_00_00.bmp,1500.25", "A0001_06_13.bmp,1400.5")
    write(root / "Train_Label" / "A0002.txt", "A0002_03_01.bmp,1600.75")
    for name in ("Distortion_1/A0001_00_00", "Distortion_2/A0001_06_13", "A0002_03_01"):
        picture(root / "Train_Dist" / f"{name}.bmp")
    for name in ("A0001", "A0002"):
        picture(root / "Train_Ref" / f"{name}.bmp")
    return root


def koniq10k(root: Path) -> Path:
    table = root / "koniq10k_scores_and_distributions" / "koniq10k_scores_and_distributions.csv"
    head = '"image_name","c1","c2","c3","c4","c5","c_total","MOS","SD","MOS_zscore"'
    write(table, head, '"1.jpg",0,0,25,73,7,105,3.83,0.53,69.5', '"2.jpg",90,9,1,0,0,100,1.11,0.34,3.9')
    for size in ("1024x768", "koniq10k_512x384/512x384"):
        for n in (1, 2):
            picture(root / size / f"{n}.jpg")
    return root


def spaq(root: Path) -> Path:
    sheet = [["Image name", "MOS", "Brightness"], ["00001.jpg", 54.0, 63], ["00002.jpg", 33.25, 45]]
    xlsx(root / "Annotations" / "MOS and Image attribute scores.xlsx", Sheet1=sheet)
    for n in (1, 2):
        picture(root / "TestImage" / f"0000{n}.jpg")
    return root


def clive(root: Path) -> Path:
    names = ["t1.bmp", "3.bmp", "4.JPG"]
    mat(root / "Data" / "AllImages_release.mat", AllImages_release=names)
    mat(root / "Data" / "AllMOS_release.mat", AllMOS_release=[[63.9, 57.5, 22.25]])
    mat(root / "Data" / "AllStdDev_release.mat", AllStdDev_release=[[20.0, 19.0, 18.5]])
    for name in ("trainingImages/t1.bmp", "3.bmp", "4.jpg"):
        picture(root / "Images" / name)
    return root


def waterloo3d(root: Path) -> Path:
    head = "image,reference,stereo,left,right,distortion"
    write(root / "mos.csv", head, "N0001,N0001,95,97,96,none", "N0002.png,N0001,50,62,96,blur", "N0003,N0003,90,,,")
    for n in (1, 2, 3):
        picture(root / "3D" / "Session3DIQ" / f"N000{n}.png", seed=n, size=(12, 32))
    return root


def ranks(root: Path) -> Path:
    """As in URankerSet."""
    for name in ("25_fusion_0", "25_two_step_1", "25_dive+_2", "1225fusion_1", "1225two_step_0"):
        picture(root / f"{name}.png")
    return root


RELEASES = {
    "tid2013": tid2013,
    "kadid10k": kadid10k,
    "live": live,
    "csiq": csiq,
    "pipal": pipal,
    "koniq10k": koniq10k,
    "spaq": spaq,
    "clive": clive,
    "waterloo3d": waterloo3d,
    "uieb-ranks": ranks,
}

# by layout: higher better, range, and image, reference, mos, std, content, distortion, level of each opinion
EXPECTED = {
    "tid2013": (
        True,
        (0, 9),
        [
            ("Distorted_Images/I01_01_1.BMP", "reference_images/I01.BMP", 5.5, 0.1, "I01", "01", 1),
            ("Distorted_Images/i01_24_5.bmp", "reference_images/I01.BMP", 4.25, 0.2, "I01", "24", 5),
            ("Distorted_Images/i02_03_2.bmp", "reference_images/i02.bmp", 0.5, 0.3, "I02", "03", 2),
        ],
    ),
    "kadid10k": (
        True,
        (1, 5),
        [
            ("images/I01_01_01.png", "images/I01.png", 4.57, 0.7, "I01", "01", 1),
            ("images/I02_25_05.png", "images/I02.png", 1, 0, "I02", "25", 5),
        ],
    ),
    "live": (
        False,
        (0, 100),
        [
            ("jp2k/img1.bmp", "refimgs/bikes.bmp", 40, None, "bikes", "jp2k", None),
            ("jp2k/img2.bmp", "refimgs/ocean.bmp", 50, None, "ocean", "jp2k", None),
            ("jpeg/img1.bmp", "refimgs/bikes.bmp", 31.5, None, "bikes", "jpeg", None),
            ("jpeg/img2.bmp", "refimgs/ocean.bmp", 20, None, "ocean", "jpeg", None),
            ("wn/img1.bmp", "refimgs/bikes.bmp", 10, None, "bikes", "wn", None),
            ("gblur/img1.bmp", "refimgs/bikes.bmp", 99, None, "bikes", "gblur", None),
            ("gblur/img2.bmp", "refimgs/ocean.bmp", 60, None, "ocean", "gblur", None),
            ("fastfading/img1.bmp", "refimgs/bikes.bmp", 70, None, "bikes", "fastfading", None),
            ("fastfading/img2.bmp", "refimgs/ocean.bmp", 80, None, "ocean", "fastfading", None),
        ],
    ),
    "csiq": (
        False,
        (0, 1),
        [
            ("dst_imgs/awgn/1600.AWGN.1.png", "src_imgs/1600.png", 0.062, 0.061, "1600", "awgn", 1),
            ("dst_imgs/jpeg2000/elk.jpeg2000.5.png", "src_imgs/elk.png", 0.9, 0.1, "elk", "jpeg2000", 5),
            ("dst_imgs/contrast/elk.contrast.3.png", "src_imgs/elk.png", 0.4, 0.2, "elk", "contrast", 3),
        ],
    ),
    "pipal": (
        True,
        (1400.5, 1600.75),
        [
            ("Train_Dist/Distortion_1/A0001_00_00.bmp", "Train_Ref/A0001.bmp", 1500.25, None, "A0001", "00_00", None),
            ("Train_Dist/Distortion_2/A0001_06_13.bmp", "Train_Ref/A0001.bmp", 1400.5, None, "A0001", "06_13", None),
            ("Train_Dist/A0002_03_01.bmp", "Train_Ref/A0002.bmp", 1600.75, None, "A0002", "03_01", None),
        ],
    ),
    "koniq10k": (
        True,
        (1, 5),
        [
            ("1024x768/1.jpg", None, 3.83, 0.53, "1", None, None),
            ("1024x768/2.jpg", None, 1.11, 0.34, "2", None, None),
        ],
    ),
    "spaq": (
        True,
        (0, 100),
        [
            ("TestImage/00001.jpg", None, 54, None, "00001", None, None),
            ("TestImage/00002.jpg", None, 33.25, None, "00002", None, None),
        ],
    ),
    "clive": (
        True,
        (0, 100),
        [
            ("Images/3.bmp", None, 57.5, 19, "3", None, None),
            ("Images/4.jpg", None, 22.25, 18.5, "4", None, None),
        ],
    ),
    "waterloo3d": (
        True,
        (0, 100),
        [
            (f"3D/Session3DIQ/N000{n}.png", f"3D/Session3DIQ/{reference}.png", mos, None, reference, distortion, None)
            for n, reference, mos, distortion in (
                (1, "N0001", 95, "none"),
                (2, "N0001", 50, "blur"),
                (3, "N0003", 90, None),
            )
        ],
    ),
    "uieb-ranks": (
        True,
        (0, 1),
        [
            ("1225two_step_0.png", None, 1, None, "1225", "two_step", 0),
            ("1225fusion_1.png", None, 0, None, "1225", "fusion", 1),
            ("25_fusion_0.png", None, 1, None, "25", "fusion", 0),
            ("25_two_step_1.png", None, 0.5, None, "25", "two_step", 1),
            ("25_dive+_2.png", None, 0, None, "25", "dive+", 2),
        ],
    ),
}
