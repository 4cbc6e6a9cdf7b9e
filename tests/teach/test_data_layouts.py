"""Published layouts of data sets are read as published, and everything that is missing or wrong is listed at once."""

from __future__ import annotations

import inspect

import fake_releases as fake
import pytest
from fake_releases import EXPECTED, RELEASES

from perceptloss.teach.data import LAYOUTS, OpinionsError, read_opinions


def table(opinions, root):
    """Image, reference, mos, std, content, distortion, level of each opinion, paths below the root."""
    rows = []
    for o in opinions:
        reference = None if o.reference is None else o.reference.relative_to(root).as_posix()
        rows.append((o.image.relative_to(root).as_posix(), reference, o.mos, o.std, o.content, o.distortion, o.level))
    return rows


@pytest.mark.parametrize("layout", EXPECTED)
def test_a_release_is_read(layout, tmp_path):
    opinions = read_opinions(layout, RELEASES[layout](tmp_path))
    higher_better, scale, rows = EXPECTED[layout]
    assert (opinions.higher_better, opinions.range, opinions.name) == (higher_better, scale, layout)
    assert sorted(table(opinions, tmp_path), key=str) == sorted(_floats(rows), key=str)
    opinions.check()


def _floats(rows):
    return [
        (image, ref, float(mos), None if std is None else float(std), *rest) for image, ref, mos, std, *rest in rows
    ]


def test_every_layout_is_tested():
    assert {*RELEASES, "csv"} == set(LAYOUTS)


@pytest.mark.parametrize("layout", [name for name in RELEASES if name != "uieb-ranks"])
def test_all_missing_pictures_are_listed_at_once(layout, tmp_path):
    root = RELEASES[layout](tmp_path)
    opinions = read_opinions(layout, root)
    gone = sorted({opinions[0].image, opinions[-1].image})
    for path in gone:
        path.unlink()
    with pytest.raises(OpinionsError) as caught:
        read_opinions(layout, root)
    missing = [p for p in caught.value.problems if p.endswith("is missing") or "numbered pictures" in p]
    if layout == "live":  # whose last picture of a folder is missed by the length of the vectors
        assert missing == ["there are 9 numbered pictures (jp2k 2, jpeg 2, wn 2, gblur 2, fastfading 1), but the "
                           "vectors have {'scores': 10, 'orgs': 10, 'std': 10, 'refnames_all': 10}"]  # fmt: skip
    else:
        assert len(missing) == len(gone)
        for path in gone:
            assert any(path.name.lower() in problem.lower() for problem in missing)


@pytest.mark.parametrize("layout", [name for name in RELEASES if name != "uieb-ranks"])
def test_an_empty_folder_is_told_all_that_is_expected(layout, tmp_path):
    with pytest.raises(OpinionsError) as caught:
        read_opinions(layout, tmp_path)
    documented = inspect.getdoc(LAYOUTS[layout])
    assert len(caught.value.problems) >= 2
    for problem in caught.value.problems:
        assert problem.startswith("expected the f")
        assert problem.endswith("found an empty folder")
        first = problem.removeprefix("expected the file ").removeprefix("expected the folder ").split(" or ")[0]
        assert first.split(",")[0].split("/")[-1] in documented
    with pytest.raises(OpinionsError, match="is not a folder"):
        read_opinions(layout, tmp_path / "absent")


def test_found_names_are_shown_beside_the_expected(tmp_path):
    fake.kadid10k(tmp_path)
    (tmp_path / "images").rename(tmp_path / "pictures")
    with pytest.raises(OpinionsError, match=r"expected the folder images, found dmos\.csv, pictures/"):
        read_opinions("kadid10k", tmp_path)


def test_tables_with_wrong_lines_are_refused_with_each_line(tmp_path):
    fake.tid2013(tmp_path)
    fake.write(tmp_path / "mos_with_names.txt", "5.5 I01_01_1.bmp", "x i01_24_5.bmp", "0.5")
    with pytest.raises(OpinionsError) as caught:
        read_opinions("tid2013", tmp_path)
    assert "line 2 is 'x', expected a number" in caught.value.problems[0]
    assert "line 3: expected a MOS and a name" in caught.value.problems[1]
    fake.write(tmp_path / "mos_std.txt", "0.1")
    with pytest.raises(OpinionsError, match=r"mos_std\.txt has 1 lines, but mos_with_names\.txt 3"):
        read_opinions("tid2013", tmp_path)


def test_scores_outside_the_scale_are_refused(tmp_path):
    fake.kadid10k(tmp_path)
    rows = "I01_01_01.png,I01.png,5.5,0.49", "I02_25_05.png,I02.png,0,-1"
    fake.write(tmp_path / "dmos.csv", "dist_img,ref_img,dmos,var", *rows)
    with pytest.raises(OpinionsError, match=r"var is -1\.0"):
        read_opinions("kadid10k", tmp_path)
    fake.write(tmp_path / "dmos.csv", "dist_img,ref_img,dmos,var", rows[0])
    with pytest.raises(OpinionsError, match=r"mos is 5\.5, expected a number in 1\.\.5"):
        read_opinions("kadid10k", tmp_path)


def test_live_options(tmp_path):
    fake.live(tmp_path)
    kept = read_opinions("live", tmp_path, originals=True)
    assert len(kept) == 10
    assert kept[5].mos == 0
    realigned = read_opinions("live", tmp_path, realigned=True)
    assert realigned.range == (0, 109)
    assert (realigned[0].mos, realigned[0].std) == (50, 1.5)


def test_matlab_files_that_are_damaged_or_lack_a_variable(tmp_path):
    fake.clive(tmp_path)
    names = tmp_path / "Data" / "AllImages_release.mat"
    fake.mat(names, images=["a.bmp"], other=[1.0])
    with pytest.raises(OpinionsError, match="expected the variables AllImages_release; found images, other"):
        read_opinions("clive", tmp_path)
    names.write_bytes(b"MATLAB 5.0, or so it says")
    with pytest.raises(OpinionsError, match="cannot be read as a MATLAB file"):
        read_opinions("clive", tmp_path)
    fake.mat(names, AllImages_release=["3.bmp"])
    with pytest.raises(OpinionsError, match="AllImages_release has 1 entries, AllMOS_release 3"):
        read_opinions("clive", tmp_path)


def test_clive_training_pictures_can_be_kept(tmp_path):
    kept = read_opinions("clive", fake.clive(tmp_path), training=True)
    assert [o.image.name for o in kept] == ["t1.bmp", "3.bmp", "4.jpg"]


def test_koniq_sizes_and_scores(tmp_path):
    fake.koniq10k(tmp_path)
    small = read_opinions("koniq10k", tmp_path, size="512x384", scores="MOS_zscore")
    assert small.range == (0, 100)
    assert [(o.mos, o.std, o.image.parent.name) for o in small] == [(69.5, None, "512x384"), (3.9, None, "512x384")]
    with pytest.raises(OpinionsError) as caught:
        read_opinions("koniq10k", tmp_path, size="large", scores="zscore")
    assert len(caught.value.problems) == 2


def test_workbooks_may_be_exported_as_csv(tmp_path):
    fake.csiq(tmp_path)
    from_workbook = table(read_opinions("csiq", tmp_path), tmp_path)
    (tmp_path / "csiq.DMOS.xlsx").unlink()
    lines = (",".join("" if cell is None else str(cell) for cell in row) for row in fake.CSIQ_SHEET)
    fake.write(tmp_path / "csiq.DMOS.csv", *lines)
    assert table(read_opinions("csiq", tmp_path), tmp_path) == from_workbook


def test_broken_and_wrong_workbooks(tmp_path):
    fake.csiq(tmp_path)
    fake.xlsx(tmp_path / "csiq.DMOS.xlsx", summary=fake.CSIQ_SHEET)
    with pytest.raises(OpinionsError, match="expected the sheet 'all_by_image'; found summary"):
        read_opinions("csiq", tmp_path)
    fake.xlsx(tmp_path / "csiq.DMOS.xlsx", all_by_image=[["image", "dmos"], ["elk", 0.5]])
    with pytest.raises(OpinionsError, match=r"expected the columns image, dst_type.*found image, dmos"):
        read_opinions("csiq", tmp_path)
    (tmp_path / "csiq.DMOS.xlsx").write_bytes(b"PK, but no archive")
    with pytest.raises(OpinionsError, match=r"is not an \.xlsx workbook.*export the sheet as \.csv"):
        read_opinions("csiq", tmp_path)


def test_stereo_pairs_lie_side_by_side_in_one_file(tmp_path):
    pairs = read_opinions("waterloo3d", fake.waterloo3d(tmp_path))
    assert all(o.image_right == o.image and o.reference_right == o.reference for o in pairs)
    assert pairs.contents == ("N0001", "N0001", "N0003")


def test_rankings_in_scene_folders_and_tables(tmp_path):
    for name in ("reef/fusion_1", "reef/raw_3", "wreck/1", "wreck/2"):
        fake.picture(tmp_path / f"{name}.png")
    found = read_opinions("uieb-ranks", tmp_path)
    assert [(o.content, o.distortion, o.level, o.mos) for o in found] == [
        ("reef", "fusion", 1, 1.0), ("reef", "raw", 3, 0.0), ("wreck", None, 1, 1.0), ("wreck", None, 2, 0.0),
    ]  # fmt: skip
    rows = "a,reef/fusion_1.png,1", "a,reef/raw_3.png,2", "a,wreck/1.png,2", "a,wreck/2.png,3"
    fake.write(tmp_path / "ranks.csv", "scene,image,rank", *rows)
    assert read_opinions("uieb-ranks", tmp_path).scores.tolist() == [1, 0.5, 0.5, 0]
    fake.write(tmp_path / "ranks.csv", "scene,image,rank", rows[0], "a,reef/absent.png,1.5", "b,wreck/1.png,1")
    with pytest.raises(OpinionsError) as caught:
        read_opinions("uieb-ranks", tmp_path)
    problems = "\n".join(caught.value.problems)
    for part in ("rank is 1.5, expected a whole number", "absent.png is missing", "scene b: 1 versions at one rank"):
        assert part in problems


def test_rankings_without_ranks_are_refused(tmp_path):
    with pytest.raises(OpinionsError, match=r"expected ranks\.csv or pictures"):
        read_opinions("uieb-ranks", tmp_path)
    for name in ("25_fusion", "wreck/raw"):
        fake.picture(tmp_path / f"{name}.png")
    with pytest.raises(OpinionsError) as caught:
        read_opinions("uieb-ranks", tmp_path)
    assert sum("does not end in a rank" in problem for problem in caught.value.problems) == 2
