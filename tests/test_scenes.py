"""Published layouts of pictures to be enhanced: what belongs together, and what is said where it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perceptloss.compare.images import Policy
from perceptloss.errors import ConfigError
from perceptloss.runs.scenes import check_scenes, find_scenes, raw_scenes, split_scenes

LAYOUTS = {
    "uieb": ("raw-890", "reference-890"),
    "lsui": ("input", "GT"),
    "lol": ("our485/low", "our485/high", "eval15/low", "eval15/high"),
    "euvp": ("Paired/dark/trainA", "Paired/dark/trainB", "Paired/net/trainA", "Paired/net/trainB", "Unpaired/trainA"),
    "suim": ("train_val/images", "train_val/masks", "TEST/images", "TEST/masks"),
}


def put(root: Path, *folders: str, names: tuple[str, ...] = ("a", "b"), size: tuple[int, int] = (48, 40)) -> Path:
    for folder in folders:
        for name in names:
            suffix = ".bmp" if "masks" in folder else ".png"
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size).save(root / folder / f"{name}{suffix}")
    return root


def found(root: Path, role: str = "train") -> list[tuple[str, bool, bool, bool]]:
    scenes = find_scenes([str(root)], [], [], role, "data.train")
    return [(s.name, s.raw is not None, s.reference is not None, s.mask is not None) for s in scenes]


def test_each_published_layout_is_known_by_its_folders(tmp_path: Path) -> None:
    roots = {name: put(tmp_path / name, *folders) for name, folders in LAYOUTS.items()}
    paired, masked = (True, True, False), (True, False, True)
    assert found(roots["lsui"]) == [("a", *paired), ("b", *paired)]
    assert found(roots["uieb"], "val") == found(roots["uieb"])
    put(roots["uieb"], "challenging-60", names=("c",))
    assert [row[1:] for row in found(roots["uieb"])] == [paired, paired, (True, False, False)]
    assert len(found(roots["uieb"], "val")) == 2
    for role, folder in (("train", "our485"), ("val", "eval15")):
        scenes = find_scenes([str(roots["lol"])], [], [], role, "data")
        assert {s.raw.parent.parent.name for s in scenes} == {folder} and len(scenes) == 2
        assert all(s.raw.parent.name == "low" and s.reference.parent.name == "high" for s in scenes)
    names = [name for name, *_ in found(roots["euvp"])]
    assert names == ["euvp/dark/a", "euvp/dark/b", "euvp/net/a", "euvp/net/b", "euvp/Unpaired/a", "euvp/Unpaired/b"]
    assert [row[1:] for row in found(roots["suim"])] == [masked] * 2
    assert "TEST" in str(find_scenes([str(roots["suim"])], [], [], "val", "data")[0].raw)
    assert found(roots["lol"] / "our485", "val") == [("a", *paired), ("b", *paired)]


def test_half_a_layout_and_half_a_pair_are_named(tmp_path: Path) -> None:
    half = put(tmp_path / "half", "raw-890")
    with pytest.raises(ConfigError, match=r"looks like UIEB, but has no reference-890; .* the very folder"):
        found(half)
    pairs = put(put(tmp_path / "pairs", "input", "GT"), "GT", names=("c",))
    with pytest.raises(ConfigError, match=r"c has no raw picture in .*input"):
        found(pairs)


@pytest.mark.parametrize(
    ("folders", "role", "said"),
    [
        (("raw-890", "challenging-60"), "train", "looks like UIEB, but has no reference-890"),
        (("Paired/dark/trainA", "Paired/net/trainA", "Paired/net/trainB"), "train", "has no Paired/dark/trainB"),
        (("our485/low", "our485/high", "eval15/low"), "val", "looks like LOL, but has no eval15/high"),
        (("our485/low", "our485/high"), "val", "is LOL, but has nothing to validate on: no eval15/low or low"),
        (("challenging-60",), "val", "is UIEB, but has nothing to validate on: no raw-890"),
    ],
)
def test_what_lacks_beside_a_whole_part_is_not_passed_over(folders, role, said, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        found(put(tmp_path, *folders), role)


def test_what_the_other_role_lacks_does_not_matter(tmp_path: Path) -> None:
    assert len(found(put(tmp_path, "our485/low", "our485/high", "eval15/low"))) == 2


def test_pictures_without_any_reference_are_split_too(tmp_path: Path) -> None:
    training, validation = split_scenes(raw_scenes([str(put(tmp_path, "a", names=("x", "y", "z")) / "a")], "data"))
    assert [scene.name for scene in (*training, *validation)] == ["x", "y", "z"] and len(validation) == 1


def _mask(kind: str) -> np.ndarray:
    ramp = np.linspace(0, 255, 48).astype(np.uint8)
    pixels = np.zeros((40, 48, 3), np.uint8)
    pixels[:20, :, :2] = 255
    if kind == "numbers":
        return np.random.default_rng(0).integers(0, 8, (40, 48), dtype=np.uint8)
    if kind == "other colours":
        pixels[:20, :, 0] = 128
    if kind == "blurred edge":
        pixels[:, 23:25] = ramp[23:25, None]
    return pixels


@pytest.mark.parametrize(
    ("kind", "is_right"), [("colours", True), ("blurred edge", True), ("numbers", False), ("other colours", False)]
)
def test_masks_of_other_colours_are_refused(kind: str, is_right: bool, tmp_path: Path) -> None:
    root = put(tmp_path, "images", "masks", names=("a",))
    Image.fromarray(_mask(kind)).save(root / "masks" / "a.bmp")
    scenes = find_scenes([str(root)], [], [], "train", "data")
    told = check_scenes(scenes, Policy(grey="replicate"), 32, decode=True)
    assert (told == []) if is_right else ("not a mask in SUIM's colours" in told[0])


def test_other_folders_hold_references_and_are_told_where_the_rest_is(tmp_path: Path) -> None:
    folder = put(tmp_path, "mine", "theirs", "masks")
    assert found(folder / "mine") == [("a", False, True, False), ("b", False, True, False)]
    whole = find_scenes([str(folder / "mine")], [str(folder / "theirs")], [str(folder / "masks")], "train", "data")
    assert whole[0].files.keys() == {"a (reference)", "a (raw)", "a (mask)"}
    with pytest.raises(ConfigError, match="1 folders, but 2 raw folders"):
        find_scenes([str(folder / "mine")], ["x", "y"], [], "train", "data")
    raw = raw_scenes([str(folder / "mine"), str(folder / "theirs")], "data")
    assert [(scene.name, scene.reference) for scene in raw][::3] == [("mine/a", None), ("theirs/b", None)]


def test_the_last_tenth_of_those_with_reference_is_held_out(tmp_path: Path) -> None:
    root = put(tmp_path, "raw-890", "reference-890", names=tuple(f"{n:02}" for n in range(20)), size=(8, 8))
    put(root, "challenging-60", names=("zz",), size=(8, 8))
    training, validation = split_scenes(find_scenes([str(root)], [], [], "train", "data"))
    assert [Path(s.name).name for s in validation] == ["18", "19"]
    assert len(training) == 19 and training[-1].reference is None


def test_sizes_that_do_not_fit_are_told(tmp_path: Path) -> None:
    root = put(put(tmp_path, "input", "GT"), "GT", names=("b",), size=(48, 41))
    scenes = find_scenes([str(root)], [], [], "train", "data")
    told = check_scenes(scenes, Policy(), 41, decode=True)
    assert told == [
        "a: 40x48 pixels; at least 41x41 are needed",
        "files of one picture differ in size: b (reference) 41x48, b (raw) 40x48",
    ]
