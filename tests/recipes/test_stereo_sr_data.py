"""Stereo pairs of the recipe: what patches are, what may be done to them, and where pairs are found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import recipe_helpers
import torch
from _lib.stereo_data import PairPatches, Scene, mirrored, strip_of_scene, whole_scene
from _lib.stereo_folders import check_scenes, find_photographs, find_scenes, read_disparity
from PIL import Image

from perceptloss.compare.disparity import visible, warp_error
from perceptloss.errors import ConfigError
from perceptloss.teach.degradations.stereo import stereo_pair

SIZE = (32, 48)


def photograph(path: Path, seed: int = 0, height: int = 120, width: int = 140) -> Path:
    recipe_helpers.photograph(path, seed, height, width)
    return path


@pytest.fixture
def scenes(tmp_path: Path) -> list[Scene]:
    real = Scene("real", photograph(tmp_path / "a_L.png", 1), photograph(tmp_path / "a_R.png", 2))
    return [Scene("photo", photograph(tmp_path / "p.png")), real]


def test_a_patch_is_a_function_of_seed_epoch_and_index(scenes: list[Scene]) -> None:
    patches, again = (PairPatches(scenes, SIZE, 4, disparity=16, cache_mb=n) for n in (0, 64))
    for place in ((0, 0), (3, 0), (1, 1)):
        lq, gt = patches[place]
        assert lq.shape == (6, 8, 12) and gt.shape == (6, *SIZE)
        assert all(torch.equal(a, b) for a, b in zip((lq, gt), again[place], strict=True))
    assert not torch.equal(patches[0, 0][1], patches[1, 0][1])


def test_shrinking_a_patch_is_cutting_the_shrunk_pair(scenes: list[Scene]) -> None:
    """Away from the borders of the whole pair too: margins hold what the kernel reaches."""
    lq, gt = whole_scene(scenes[1], 4)
    patches = PairPatches(scenes, SIZE, 4, flips=False)
    for epoch in range(4):
        small, large = patches[epoch, 1]
        top, left = next(
            (y, x)
            for y in range(lq.shape[1] - 7)
            for x in range(lq.shape[2] - 11)
            if torch.equal(gt[:, 4 * y : 4 * y + 32, 4 * x : 4 * x + 48], large)
        )
        assert torch.equal(small, lq[:, top : top + 8, left : left + 12])


def test_a_mirrored_pair_has_the_depth_that_the_pair_had() -> None:
    photo = torch.rand(1, 3, 40, 90, generator=torch.Generator().manual_seed(0))
    pair, _ = stereo_pair(photo, 0, 10.0, torch.full((1, 1, 40, 80), 10.0))
    disparity = torch.full((1, 40, 80), 10.0)
    for image in (pair, mirrored(pair)):
        assert float(warp_error(*image.chunk(2, 1), disparity)) < 1e-5
    assert float(warp_error(*pair.flip(-1).chunk(2, 1), disparity)) > 0.1, "views that stay where they were"
    assert torch.equal(mirrored(mirrored(pair)), pair)


def test_turns_are_alike_in_both_views(tmp_path: Path) -> None:
    """Of a pair of equal views every patch has equal views; and all legal turns come."""
    file = photograph(tmp_path / "same.png")
    grey = Scene("same", file, file)
    seen = set()
    patches, plain = PairPatches([grey], SIZE, 4), PairPatches([grey], SIZE, 4, flips=False)
    for epoch in range(40):
        (_, gt), (_, straight) = patches[epoch, 0], plain[epoch, 0]
        left, right = gt.chunk(2)
        assert torch.equal(left, right)
        turned = {(m, u): straight[:3].flip([-1] * m + [-2] * u) for m in (0, 1) for u in (0, 1)}
        found = [
            (*turn, order)
            for turn, image in turned.items()
            for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
            if torch.equal(image[[*order]], left)
        ]
        assert found, "mirrored, upside down, colours exchanged: nothing else is legal"
        seen.add(found[0])
    assert len({turn[:2] for turn in seen}) == 4 and len({turn[2] for turn in seen}) > 3


def test_patches_spare_the_strip(scenes: list[Scene]) -> None:
    lq, gt = strip_of_scene(scenes[1], 4, SIZE)
    assert gt.shape == (6, 32, 96) and lq.shape == (6, 8, 24)
    whole = whole_scene(scenes[1], 4)[1]
    assert torch.equal(gt, whole[:, -32:, :96])
    rows = {tuple(row.flatten().tolist()) for row in whole[:3, -32:].unbind(1)}
    patches = PairPatches(scenes, SIZE, 4, flips=False, spares_strips=True)
    for epoch in range(30):
        left = patches[epoch, 1][1][:3]
        starts = [
            y
            for y in range(whole.shape[1] - 31)
            for x in range(0, whole.shape[2] - 47, 4)
            if torch.equal(whole[:3, y : y + 32, x : x + 48], left)
        ]
        assert starts and max(starts) + 32 <= whole.shape[1] - 32
    assert rows


LAYOUTS = {
    "Flickr1024": ("0001_L.png", "0001_R.png"),
    "Middlebury 2014": ("Piano/im0.png", "Piano/im1.png"),
    "Middlebury of NAFSSR": ("Piano/hr0.png", "Piano/hr1.png"),
    "Middlebury 2006": ("Cloth3/view1.png", "Cloth3/view5.png"),
    "KITTI 2012": ("training/colored_0/000000_10.png", "training/colored_1/000000_10.png"),
    "KITTI 2015": ("training/image_2/000000_10.png", "training/image_3/000000_10.png"),
    "folders": ("left/a.png", "right/a.png"),
    "scikit-image": ("motorcycle_left.png", "motorcycle_right.png"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pairs_are_found_in_every_layout(layout: str, tmp_path: Path) -> None:
    left, right = (photograph(tmp_path / name, seed) for seed, name in enumerate(LAYOUTS[layout]))
    (scene,) = find_scenes([str(tmp_path)], "data.train")
    assert (scene.left, scene.right) == (left, right)
    assert set(scene.files.values()) == {left, right}


@pytest.mark.parametrize(
    ("layout", "more"),
    [
        ("Middlebury 2014", ("Piano/im1E.png", "Piano/im1L.png")),
        ("KITTI 2012", ("training/image_0/000000_10.png", "training/image_1/000000_10.png")),
    ],
)
def test_what_a_layout_shows_twice_is_taken_once(layout: str, more: tuple[str, str], tmp_path: Path) -> None:
    for name in LAYOUTS[layout] + more:
        photograph(tmp_path / name)
    (scene,) = find_scenes([str(tmp_path)], "data.train")
    assert scene.views == tuple(tmp_path / name for name in LAYOUTS[layout])
    for name in LAYOUTS[layout]:
        (tmp_path / name).unlink()
    if layout == "KITTI 2012":
        (scene,) = find_scenes([str(tmp_path)], "data.train")
        assert scene.views == tuple(tmp_path / name for name in more)


def test_disparity_beside_a_pair_is_found_and_read(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    for name in LAYOUTS["KITTI 2015"] + LAYOUTS["Middlebury 2014"]:
        photograph(tmp_path / name)
    kitti = tmp_path / "training" / "disp_occ_0" / "000000_10.png"
    kitti.parent.mkdir(parents=True)
    Image.fromarray((values * 256).astype(np.uint16)).save(kitti)
    pfm = tmp_path / "Piano" / "disp0.pfm"
    pfm.write_bytes(b"Pf\n4 3\n-1.0\n" + np.where(values > 0, values, np.inf)[::-1].astype("<f4").tobytes())
    found = {scene.name: scene.disparity for scene in find_scenes([str(tmp_path)], "data.val")}
    assert set(found.values()) == {kitti, pfm}
    for path in (kitti, pfm):
        disparity = read_disparity(path)
        assert torch.isnan(disparity[0, 0]) and torch.equal(disparity.nan_to_num(0), torch.from_numpy(values))
    assert not visible(read_disparity(pfm)[None])[0, 0, 0]
    with pytest.raises(ConfigError, match="cannot be read as a map of disparity"):
        read_disparity(tmp_path / "Piano" / "im0.png")


def test_what_is_wrong_with_folders_is_told_all_at_once(tmp_path: Path) -> None:
    photograph(tmp_path / "one" / "b_L.png")
    photograph(tmp_path / "one" / "street.png")
    with pytest.raises(ConfigError) as caught:
        find_scenes([str(tmp_path / "one"), str(tmp_path / "none")], "data.train")
    text = "\n".join(caught.value.problems)
    assert "say no view" in text and "street.png" in text and "colored_0/" in text
    assert "is a left view without its right one" in text
    assert "none" in text
    small = Scene("s", photograph(tmp_path / "s_L.png", 0, 60, 60), photograph(tmp_path / "s_R.png", 0, 60, 66))
    assert "60x66 pixels, but" in check_scenes([small], SIZE, decode=True)[0]
    assert "at least 64x48 are needed" in check_scenes([Scene("t", small.left)], (64, 48), decode=False)[0]
    assert [scene.right for scene in find_photographs([str(tmp_path / "one")], "data.photos")] == [None, None]
