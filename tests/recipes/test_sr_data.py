"""Images, patches and their order."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import recipe_helpers
import sr
import torch
from _lib.data import POLICY, PatchPairs, SampleOrder, degrade, patch_loader, whole_pair
from PIL import Image

from perceptloss.compare.images import read
from perceptloss.errors import ConfigError, InputError, PerceptlossError
from perceptloss.runs.images import bundled, check, find_pairs
from perceptloss.runs.options import Val


def test_default_photographs_are_installed_and_held_out() -> None:
    training, validation = bundled(sr.TRAIN_PHOTOS), bundled(sr.VAL_PHOTOS)
    assert check([*training, *validation], POLICY, 128, 4, decode=True) == []
    assert not {p.name for p in training} & {p.name for p in validation}


def test_missing_bundled_photograph_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"--data\.train"):
        bundled(["no_such_photo.png"])


def test_patch_is_what_cutting_the_degraded_image_gives(photos: Path) -> None:
    pairs = find_pairs([str(photos / "train")], [], 4, "data.train")
    patches = PatchPairs(pairs, 32, 4, flips=False)
    for index, pair in enumerate(pairs):
        whole, gt = whole_pair(pair, 4)
        for epoch in range(4):
            lq, hq = patches[epoch, index]
            windows = whole.unfold(1, 8, 1).unfold(2, 8, 1)  # (3, rows, columns, 8, 8)
            distance = (windows - lq[:, None, None]).abs().amax((0, 3, 4))
            row, column = divmod(int(distance.argmin()), distance.shape[1])
            assert distance.min() <= 1.01 / 255  # a tie of the rounding to 8 bits
            assert torch.equal(gt[:, row * 4 : row * 4 + 32, column * 4 : column * 4 + 32], hq)


def test_degradation_keeps_constants_and_ramps() -> None:
    ramp = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    small = degrade(ramp, 4)
    assert small.shape == (1, 3, 16, 16)
    assert torch.allclose(small[0, 0, 0, 2:-2], ramp[0, 0, 0].view(16, 4).mean(1)[2:-2], atol=0.51 / 255)
    assert torch.equal(degrade(torch.ones(1, 3, 16, 16), 4), torch.ones(1, 3, 4, 4))


def test_patches_depend_on_seed_epoch_and_index_only(photos: Path) -> None:
    pairs = find_pairs([str(photos / "train")], [], 4, "data.train")
    first, second = PatchPairs(pairs, 32, 4, seed=3, cache_mb=1), PatchPairs(pairs, 32, 4, seed=3)
    backwards = [second[e, i] for e in (1, 0) for i in (4, 3, 2, 1, 0)][::-1]
    forwards = [first[e, i] for e in (0, 1) for i in range(5)]
    for a, b in zip(forwards, backwards, strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
    assert not torch.equal(forwards[0][1], forwards[5][1])  # another epoch
    assert not torch.equal(PatchPairs(pairs, 32, 4, seed=4)[0, 0][1], forwards[0][1])


def test_flips_turn_both_sides_alike(photos: Path) -> None:
    pairs = find_pairs([str(photos / "train")], [], 4, "data.train")
    patches, seen = PatchPairs(pairs, 32, 4), set()
    for epoch in range(40):
        lq, gt = patches[epoch, 0]
        assert (degrade(gt[None], 4)[0] - lq)[:, 2:-2, 2:-2].abs().max() <= 1.01 / 255
        straight = PatchPairs(pairs, 32, 4, flips=False)[epoch, 0][1]
        turned = [straight, straight.flip(-1), straight.flip(-2), straight.flip(-1, -2)]
        seen.add(next(i for i, t in enumerate([*turned, *(t.mT for t in turned)]) if torch.equal(t, gt)))
    assert seen == set(range(8))


def test_workers_do_not_change_the_batches(photos: Path) -> None:
    pairs = find_pairs([str(photos / "train")], [], 4, "data.train")
    patches = PatchPairs(pairs, 32, 4)
    alone, helped = (list(patch_loader(patches, SampleOrder(5, 0, 8), 2, workers)) for workers in (0, 2))
    assert len(alone) == 4
    assert all(torch.equal(a, b) for x, y in zip(alone, helped, strict=True) for a, b in zip(x, y, strict=True))


def test_order_is_one_list_that_any_position_continues() -> None:
    whole = list(SampleOrder(5, 0, 17, seed=1))
    assert list(SampleOrder(5, 7, 17, seed=1)) == whole[7:]
    for epoch in range(3):
        assert sorted(index for e, index in whole if e == epoch) == list(range(5))
    assert whole[:5] != [(0, i) for _, i in whole[5:10]]
    assert list(SampleOrder(5, 0, 17, seed=2)) != whole


def test_pairs_are_matched_by_stem(photos: Path, tmp_path: Path) -> None:
    for pair in find_pairs([str(photos / "train")], [], 4, "data.train"):
        lq, _ = whole_pair(pair, 4)
        target = (tmp_path / pair.name).with_name(f"{Path(pair.name).name}x4.bmp")
        target.parent.mkdir(exist_ok=True)
        Image.fromarray(lq.mul(255).byte().permute(1, 2, 0).numpy()).save(target)
    pairs = find_pairs([str(photos / "train")], [str(tmp_path)], 4, "data.train")
    assert [p.name for p in pairs] == ["deep/photo4", *(f"photo{i}" for i in range(4))]
    assert check(pairs, POLICY, 32, 4, decode=True) == []
    lq, gt = PatchPairs(pairs, 32, 4, flips=False)[0, 2]
    made_lq, made_gt = PatchPairs([type(p)(p.gt, None, p.name) for p in pairs], 32, 4, flips=False)[0, 2]
    assert torch.equal(gt, made_gt)
    assert (lq - made_lq).abs().max() <= 1.01 / 255


def test_missing_partners_are_all_listed(photos: Path, tmp_path: Path) -> None:
    recipe_helpers.photograph(tmp_path / "photo1.png", 0, 16, 18)
    recipe_helpers.photograph(tmp_path / "stranger.png", 0, 16, 18)
    with pytest.raises(ConfigError) as caught:
        find_pairs([str(photos / "train")], [str(tmp_path)], 4, "data.train")
    assert len(caught.value.problems) == 5
    assert sum("has no low-quality partner" in p for p in caught.value.problems) == 4
    assert "stranger.png has no ground truth" in str(caught.value)


def test_same_stem_empty_and_missing_folders_are_errors(tmp_path: Path) -> None:
    recipe_helpers.photograph(tmp_path / "a" / "x.png", 0, 16, 18)
    recipe_helpers.photograph(tmp_path / "a" / "x.bmp", 0, 16, 18)
    (tmp_path / "b").mkdir()
    with pytest.raises(ConfigError) as caught:
        find_pairs([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "c")], [], 4, "data.train")
    assert [
        ("2 files are called 'x'" in p, "no images in" in p, "is not there" in p).index(True)
        for p in sorted(caught.value.problems)
    ] == [2, 0, 1]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """Four faults: cut off, not an image, too small, transparent; 16 bits are none."""
    recipe_helpers.photograph(tmp_path / "cut.png", 0, 64, 64)
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-400])
    (tmp_path / "text.jpg").write_text("not an image")
    recipe_helpers.photograph(tmp_path / "small.png", 0, 20, 64)
    Image.new("RGBA", (64, 64)).save(tmp_path / "glass.png")
    Image.fromarray(np.zeros((64, 64), np.uint16)).save(tmp_path / "deep.png")
    recipe_helpers.photograph(tmp_path / "good.png", 0, 64, 64)
    return tmp_path


def test_all_bad_images_are_listed_with_their_paths(broken: Path) -> None:
    found = check(find_pairs([str(broken)], [], 4, "data"), POLICY, 32, 4, decode=True)
    assert [Path(line.split(":")[0]).name for line in found] == [
        "cut.png",
        "glass.png",
        "text.jpg",
        "small.png",
    ]
    assert "at least 32x32" in found[3]


def test_header_check_sees_sizes_but_not_truncation(broken: Path) -> None:
    found = check(find_pairs([str(broken)], [], 4, "data"), POLICY, 32, 4, decode=False)
    assert [Path(line.split(":")[0]).name for line in found] == ["glass.png", "text.jpg", "small.png"]


def test_low_quality_of_the_wrong_size_is_listed(photos: Path, tmp_path: Path) -> None:
    for i in range(3):
        recipe_helpers.photograph(tmp_path / f"held{i}.png", i, 12, 60)
    found = check(find_pairs([str(photos / "val")], [str(tmp_path)], 4, "data.val"), POLICY, 32, 4, decode=False)
    assert len(found) == 3
    assert "12x60 pixels" in found[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_failure_while_training_names_the_file(broken: Path, workers: int) -> None:
    pairs = [p for p in find_pairs([str(broken)], [], 4, "data") if p.name == "cut"]
    with pytest.raises(InputError, match=r"cut\.png"):
        list(patch_loader(PatchPairs(pairs, 32, 4), SampleOrder(1, 0, 2), 1, workers))


def test_grey_images_become_rgb(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(tmp_path / "grey.png")
    assert (read(tmp_path / "grey.png", POLICY) == np.full((8, 8, 3), 7)).all()


def test_sixteen_bits_are_kept_and_scaled_by_their_own_top(tmp_path: Path) -> None:
    ramp = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    (pair,) = find_pairs([str(tmp_path)], [], 4, "data")
    patches = PatchPairs([pair], 32, 4, flips=False, cache_mb=1)
    _, gt = patches[0, 0]
    whole = torch.from_numpy(ramp.astype(np.float32) / 65535)
    windows = whole.unfold(0, 32, 1).unfold(1, 32, 1)
    assert (windows == gt[0]).all((2, 3)).any()
    assert patches._kept[pair.gt].dtype == np.uint16
    assert torch.equal(whole_pair(pair, 4)[1][1], whole)


def test_a_network_of_nan_is_never_the_best(photos, tmp_path):
    """Its means are none and lose to any, a later finite one is taken, and the table names it instead of a row."""
    import math

    from _lib.validation import Jury
    from accelerate import Accelerator

    from perceptloss.runs.images import find_pairs

    jury = Jury.summon(Accelerator(cpu=True), Val(judges=("gmsd", "mdsi")), [], 0)
    pairs, whole = find_pairs([str(photos / "val")], [], 4, "val"), partial(whole_pair, scale=4)
    systems = {
        "bicubic": lambda lq: torch.nn.functional.interpolate(lq[None], scale_factor=4, mode="bicubic")[0],
        "broken": lambda lq: torch.full((3, 4 * lq.shape[1], 4 * lq.shape[2]), math.nan),
    }
    means = {name: jury.means(enlarge, pairs, whole)[0] for name, enlarge in systems.items()}
    assert set(means["broken"].values()) == {None}
    for name in jury.cards:
        good = means["bicubic"][name]
        for bad in (None, math.nan, math.inf, -math.inf):
            assert jury.is_better(name, good, bad)
            assert not jury.is_better(name, bad, good)
    text = jury.conclude(tmp_path, systems, pairs, whole, "broken", {})
    assert "left out, because it restores pixels that are NaN or infinite: broken" in text
    assert "| bicubic |" in text or "bicubic" in text.splitlines()[0]
    assert not (tmp_path / "images" / "broken").exists()
    with pytest.raises(PerceptlossError, match="no network restores finite images: broken"):
        jury.conclude(tmp_path, {"broken": systems["broken"]}, pairs, whole, "broken", {})
