"""Sets of opinions: from CSV, split by content, on common scales, and checked against the files they name."""

from __future__ import annotations

import numpy as np
import pytest
from fake_releases import picture, write

from perceptloss.teach.data import Opinion, OpinionsError, OpinionSet, read_opinions


def opinion(content, version=0, mos=3.0, **more):
    facts = {"image": f"{content}_{version}.png", "reference": f"{content}.png"}
    return Opinion(**{**facts, "mos": mos, "content": content, "level": version, **more})


def made(sizes, higher_better=True):
    rng = np.random.default_rng(0)
    rows = [opinion(f"c{c}", v, mos=float(rng.uniform(1, 5))) for c, size in enumerate(sizes) for v in range(size)]
    return OpinionSet("made", rows, higher_better, (1, 5))


@pytest.fixture
def folder(tmp_path):
    for name in ("a", "a1", "a2", "b1"):
        picture(tmp_path / "images" / f"{name}.png", seed=len(name))
    return tmp_path


def test_csv_with_all_columns(folder):
    path = write(
        folder / "scores.csv",
        " MOS ,image,reference,std,content,distortion,level,note",
        "3.5,images/a1.png,images/a.png,0.5,tree,blur,2,",
        "",
        '"1",images/a2.png,images/a.png,,tree,,,"seen, twice"',
        "4,images/b1.png,,,,,,",
    )
    found = read_opinions("csv", path, name="mine", range=(1, 5))
    images = folder / "images"
    assert list(found) == [
        Opinion(images / "a1.png", 3.5, "tree", images / "a.png", 0.5, "blur", 2),
        Opinion(images / "a2.png", 1.0, "tree", images / "a.png"),
        Opinion(images / "b1.png", 4.0, "images/b1.png"),
    ]
    assert (found.name, found.higher_better, found.range) == ("mine", True, (1, 5))


def test_csv_defaults(folder):
    rows = "images/a1.png,images/a.png,3", "images/a2.png,images/a.png,-2", "images/a.png,,9"
    found = read_opinions("csv", write(folder / "scores.csv", "image,reference,mos", *rows), higher_better=False)
    assert (found.name, found.range, found.higher_better) == ("scores", (-2, 9), False)
    assert found.contents == ("images/a.png",) * 3


def test_a_reference_that_is_judged_too_has_the_content_of_its_copies(folder):
    rows = "images/a1.png,images/a.png,3,tree", "images/a.png,,9,"
    found = read_opinions("csv", write(folder / "scores.csv", "image,reference,mos,content", *rows))
    assert found.contents == ("tree", "tree")


def test_csv_problems_are_listed_with_their_lines(folder):
    path = write(
        folder / "scores.csv",
        "image,reference,mos,std,level",
        "images/a1.png,images/a.png,good,,",
        "images/a2.png,images/none.png,3,x,1.5",
        ",,nan,,",
        "images/b1.png,,4,,",
        "images/b1.png,,5,,",
    )
    with pytest.raises(OpinionsError) as caught:
        read_opinions("csv", path)
    expected = (
        "line 6: images/b1.png was already in line 5; give each picture one row, with the mean of its scores",
        "line 2: mos is 'good', expected a number",
        "line 3: std is 'x', expected a number",
        "line 3: level is '1.5', expected a whole number",
        "line 4: image is empty",
        "line 4: mos is 'nan', expected a number",
        f"line 3: {folder / 'images' / 'none.png'} is missing",
    )
    for part in expected:
        assert any(problem.endswith(part) for problem in caught.value.problems), part
    assert len(caught.value.problems) == len(expected)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["picture,moss", "a,1"], r"expected the columns image, mos or dmos; found picture, moss"),
        (["image;mos", "a;1"], r"found image;mos; cells are separated by ';', expected commas"),
        (["image,MOSS", "a,1"], r"found image, MOSS; did you mean 'MOSS'"),
        (["image,mos"], r"there are no rows below the header"),
        (["image,mos,mos", "a,1,2"], r"the column mos comes twice"),
        (["image,mos", "a,1,2"], r"line 2 has 3 cells, but the header has 2"),
        (['image,mos\n"a,1'], r"is not CSV"),
    ],
)
def test_tables_that_are_none(tmp_path, lines, message):
    with pytest.raises(OpinionsError, match=message):
        read_opinions("csv", write(tmp_path / "scores.csv", *lines))


def test_unknown_layouts_options_and_files(tmp_path):
    with pytest.raises(OpinionsError, match=r"unknown layout 'kadid'.*did you mean 'kadid10k'"):
        read_opinions("kadid", tmp_path)
    with pytest.raises(OpinionsError, match=r"unknown option 'higher'; did you mean 'higher_better'"):
        read_opinions("csv", tmp_path, higher=True)
    with pytest.raises(OpinionsError, match="is not a file"):
        read_opinions("csv", tmp_path)


@pytest.mark.parametrize("sizes", [[5] * 40, [1] * 200, list(range(1, 31))])
def test_a_split_keeps_contents_whole_and_fractions_near(sizes):
    whole = made(sizes)
    parts = whole.split({"train": 0.7, "val": 0.1, "test": 0.2}, seed=3)
    contents = [set(part.contents) for part in parts.values()]
    assert sum(map(len, contents)) == len(set.union(*contents)) == len(sizes)
    assert sorted(o.image for part in parts.values() for o in part) == sorted(o.image for o in whole)
    for name, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert abs(len(parts[name]) - share * len(whole)) <= max(sizes)
        assert (parts[name].range, parts[name].name) == (whole.range, "made")


def test_a_split_depends_on_the_seed_but_not_on_the_order():
    whole = made([3] * 30)
    backwards = OpinionSet("made", reversed(whole), True, (1, 5))
    halves = {"a": 0.5, "b": 0.5}
    one, same, other = whole.split(halves, 1), backwards.split(halves, 1), whole.split(halves, 2)
    assert set(one["a"].contents) == set(same["a"].contents)
    assert set(one["a"].contents) != set(other["a"].contents)


def test_no_part_of_a_split_stays_empty():
    for seed in range(20):
        parts = made([9, 1, 1]).split({"train": 0.9, "val": 0.05, "test": 0.05}, seed)
        assert all(len(set(part.contents)) == 1 for part in parts.values())


def test_splits_that_cannot_be():
    whole = made([2, 2])
    for fractions, message in (
        ({"a": 0.5, "b": 0.4}, "sum 1"),
        ({"a": 1.5, "b": -0.5}, "b: a fraction must be positive, got -0.5"),
        ({}, "sum 1"),
        ({"a": 0.4, "b": 0.3, "c": 0.3}, "2 contents cannot be split into 3 parts"),
    ):
        with pytest.raises(OpinionsError, match=message):
            whole.split(fractions)


def test_turning_a_set_mirrors_every_score_in_the_range():
    rows = [opinion("a", 0, 1.5, std=0.3), opinion("a", 1, 4.0)]
    turned = OpinionSet("made", rows, False, (1, 5)).higher()
    assert (turned.higher_better, turned.range) == (True, (1, 5))
    assert [(o.mos, o.std) for o in turned] == [(4.5, 0.3), (2.0, None)]
    assert turned.higher() is turned


def test_a_set_is_a_sequence_and_says_what_it_is():
    whole = made([2, 3], higher_better=False)
    assert len(whole) == 5
    assert list(whole[1:3]) == [whole[1], whole[2]]
    assert repr(whole[1:3]) == "OpinionSet('made', 2 opinions of 2 contents, 1..5, lowest best)"


def test_sets_with_contradictions_are_refused():
    rows = [
        opinion("a", 0, 6.0),
        opinion("a", 1, float("nan")),
        opinion("a", 2, std=-1.0),
        opinion("a", 3),
        opinion("a", 3),
        opinion("b", 4, reference="a.png"),
    ]
    with pytest.raises(OpinionsError) as caught:
        OpinionSet("made", rows, True, (1, 5))
    assert caught.value.problems == (
        "a_0.png: mos is 6.0, expected a number in 1..5",
        "a_1.png: mos is nan, expected a number in 1..5",
        "a_2.png: std is -1.0, expected 0 or more",
        "a_3.png comes more than once",
        "a.png is of content 'a' and of 'b'",
    )
    with pytest.raises(OpinionsError, match="no opinions"):
        OpinionSet("made", [], True, (1, 5))


def test_check_lists_every_file(folder):
    rows = "images/a1.png,images/a.png,3", "images/a2.png,images/a.png,4", "images/b1.png,images/a.png,5"
    found = read_opinions("csv", write(folder / "scores.csv", "image,reference,mos", *rows))
    found.check()
    images = folder / "images"
    (images / "a2.png").write_bytes(b"")
    (images / "b1.png").unlink()
    with pytest.raises(OpinionsError) as caught:
        found.check()
    assert caught.value.problems == (f"{images / 'a2.png'} is empty", f"{images / 'b1.png'} is missing")


def test_stereo_pairs_in_files_of_their_own(folder):
    head = "image,image_right,reference,reference_right,mos"
    row = "images/a1.png,images/a2.png,images/a.png,images/b1.png,3"
    (pair,) = read_opinions("csv", write(folder / "scores.csv", head, row), range=(0, 5))
    assert [file.name for file in pair.files] == ["a1.png", "a2.png", "a.png", "b1.png"]


def test_columns_that_mean_nothing_are_named_and_slips_of_the_pen_refused(folder, caplog):
    rows = "images/a1.png,images/a.png,3,17,x", "images/b1.png,,4,12,y"
    read_opinions("csv", write(folder / "a.csv", "image,reference,mos,votes,camera", *rows))
    assert "columns that mean nothing here: votes, camera; known: image, mos, dmos, reference, std" in caplog.text
    with pytest.raises(OpinionsError, match="unknown column 'refrence'; did you mean 'reference'"):
        read_opinions("csv", write(folder / "a.csv", "image,refrence,mos,votes,camera", *rows))
