"""Content hashes find copies of a picture, tell different pictures apart, and stop leaks between sets."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from images import ladder
from PIL import Image

from perceptloss.errors import ConfigError, InputError
from perceptloss.teach.leaks.alignment import FULL, align, correlate
from perceptloss.teach.leaks.fingerprints import signs
from perceptloss.teach.leaks.hashing import (
    Fingerprints,
    LeakError,
    find_duplicates,
    fingerprint,
    fingerprint_files,
    refuse_leak,
)
from perceptloss.teach.leaks.thumbnails import centred, cosine_coefficients, luma_thumbnails

NAMES = ("astronaut", "coffee", "chelsea", "rocket", "camera", "coins", "moon", "motorcycle", "clock")


@pytest.fixture(scope="module")
def photographs():
    """Nine photographs, (9, 3, 192, 256)."""
    from skimage import data

    pictures = [
        data.astronaut(),
        data.coffee(),
        data.chelsea(),
        data.rocket(),
        data.camera(),
        data.coins(),
        data.moon(),
        data.stereo_motorcycle()[0],
        data.clock(),
    ]
    planes = []
    for picture in pictures:
        pixels = torch.from_numpy(np.atleast_3d(picture).copy()).permute(2, 0, 1)[None].float() / 255
        planes.append(F.interpolate(pixels.expand(1, 3, -1, -1), (192, 256), mode="area"))
    return torch.cat(planes)


def crop(images, left, right, top, bottom):
    height, width = images.shape[2:]
    rows = slice(round(top * height), round((1 - bottom) * height))
    return images[:, :, rows, round(left * width) : round((1 - right) * width)]


def resized(images, height, width):
    return F.interpolate(images, (height, width), mode="bilinear", antialias=True)


COPIES = {
    "same": lambda y: y,
    "blur": lambda y: ladder("blur", y)[3],
    "noise": lambda y: ladder("noise", y)[3],
    "compressed": lambda y: ladder("jpeg", y)[3],
    "darker": lambda y: 0.5 * y,
    "brighter": lambda y: (1.2 * y).clamp(max=1),
    "contrast": lambda y: 0.5 + 0.3 * (y - 0.5),
    "gamma": lambda y: y**1.8,
    "grey": lambda y: y.mean(1, keepdim=True).expand_as(y),
    "smaller": lambda y: resized(y, 60, 80),
    "squeezed": lambda y: resized(y, 256, 256),
    "crop of a corner": lambda y: crop(y, 0.1, 0, 0.1, 0),
    "crop of all sides": lambda y: crop(y, 0.05, 0.05, 0.05, 0.05),
    "crop of odd size": lambda y: crop(y, 0.02, 0.06, 0, 0.07),
    "crop, noise, jpeg": lambda y: ladder("jpeg", ladder("noise", crop(y, 0, 0.08, 0.03, 0))[2])[2],
}


@pytest.fixture(scope="module")
def found(photographs):
    """Duplicates of all copies, of all mirrored ones, and of all with the two sets exchanged."""
    names = [f"{kind}: {name}" for kind in COPIES for name in NAMES]
    thumbnails = torch.cat([fingerprint(NAMES, copy(photographs)).thumbnails for copy in COPIES.values()])
    originals, copies = fingerprint(NAMES, photographs), Fingerprints(tuple(names), thumbnails)
    mirrored = Fingerprints(tuple(names), thumbnails.flip(2))
    return {
        "as they are": find_duplicates(originals, copies),
        "mirrored": find_duplicates(originals, mirrored),
        "exchanged": find_duplicates(copies, originals),
    }


@pytest.mark.parametrize("how", ["as they are", "mirrored", "exchanged"])
@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_found_and_nothing_else(found, kind, how):
    pairs = {(p.a_name, p.b_name, p.mirrored) for p in found[how] if f"{kind}: " in p.a_name + p.b_name}
    if how == "exchanged":
        assert pairs == {(f"{kind}: {name}", name, False) for name in NAMES}
    else:
        assert pairs == {(name, f"{kind}: {name}", how == "mirrored") for name in NAMES}


def test_different_photographs_are_not_duplicates(photographs):
    prints = fingerprint(NAMES, photographs)
    assert find_duplicates(prints, prints) == []


def test_within_a_set_each_pair_comes_once(photographs):
    both = torch.cat([photographs, photographs.flip(3)])
    prints = fingerprint([*NAMES, *(f"{name} mirrored" for name in NAMES)], both)
    found = find_duplicates(prints, prints)
    assert {(pair.a_name, pair.b_name) for pair in found} == {(name, f"{name} mirrored") for name in NAMES}
    assert all(pair.mirrored and pair.distance == 0 and pair.correlation > 0.99 for pair in found)


def test_smooth_pictures_that_hash_alike_are_told_apart_by_the_thumbnails():
    t = torch.linspace(0, 1, 128)
    base = 0.5 + 0.3 * torch.sin(2 * t[None] + 1) * torch.cos(1.5 * t[:, None])
    detail = [torch.sin(f * t[None] + p) * torch.sin(g * t[:, None]) for f, g, p in ((23, 31, 0.3), (29, 19, 2.0))]
    smooth = torch.stack([base + 0.1 * d for d in detail])[:, None].expand(-1, 3, -1, -1)
    a, b = fingerprint(["a"], smooth[:1]), fingerprint(["b"], smooth[1:])
    by_hash = find_duplicates(a, b, threshold=32, correlation=-1)
    assert len(by_hash) == 1
    assert by_hash[0].correlation < 0.8
    assert find_duplicates(a, b, threshold=32) == []


def codes(thumbnails):
    return signs(cosine_coefficients(centred(thumbnails), FULL)) > 0


def content_hash(images):
    return codes(luma_thumbnails(images))


def test_hash_is_bits_and_mirroring_flips_a_fixed_set_of_them(photographs):
    found = content_hash(photographs)
    assert found.shape == (9, 64)
    assert (found.float().mean() - 0.5).abs() < 0.1
    flipped = found ^ content_hash(photographs.flip(3))
    assert (flipped == flipped[0]).float().mean() > 0.98
    assert 20 < flipped[0].sum() < 44


def test_flat_pictures_hash_to_nothing_and_equal_only_each_other(photographs):
    flat = torch.full((2, 3, 40, 50), 0.3)
    flat[1] = 0.7
    assert not content_hash(flat).any()
    both = fingerprint(["dark", "light"], flat)
    assert [(d.distance, d.correlation) for d in find_duplicates(both, both)] == [(0, 1.0)]
    assert find_duplicates(both, fingerprint(NAMES, photographs), threshold=64) == []


def test_coefficients_of_a_window_are_those_of_the_crop():
    picture = torch.rand(2, 3, 64, 64)
    whole = luma_thumbnails(picture)
    window = torch.tensor([0.25, 0.75, 0.5, 1.0])
    found = cosine_coefficients(centred(whole), window)
    cut = whole[:, 32:, 16:48]
    t = (torch.arange(32) + 0.5) / 32
    for v, u in ((0, 1), (3, 2), (5, 0)):
        waves = torch.cos(np.pi * v * t)[:, None] * torch.cos(np.pi * u * t)
        shrink = torch.special.sinc(torch.tensor([v / 64, u / 64])).prod()  # the mean of a wave over a pixel
        assert torch.allclose(found[:, v, u], (cut * waves).mean((1, 2)) * shrink, atol=1e-5)


def test_alignment_finds_a_crop_that_no_start_hits(photographs):
    whole = centred(luma_thumbnails(photographs))
    part = centred(luma_thumbnails(crop(photographs, 0.06, 0.0, 0.0, 0.09)))
    start = FULL.expand(9, 4)
    before = correlate(cosine_coefficients(whole, start), cosine_coefficients(part, FULL))
    after = align(whole, part, start, promising=(-1, -1, -1))
    assert (after >= before).all()
    assert before.min() < 0.6
    assert after.min() > 0.9


def test_a_leak_is_refused_with_every_pair_and_both_sets(photographs):
    judge = {
        "copy of t1": crop(photographs[1:2], 0.1, 0, 0, 0.1).flip(3),
        "copy of a0": resized(photographs[5:6], 100, 100),
        "new": photographs[8:9],
    }
    sets = {
        "train": fingerprint([f"t{i}" for i in range(5)], photographs[:5]),
        "anchor": fingerprint(["a0", "a1"], photographs[5:7]),
        "judge": Fingerprints(tuple(judge), torch.cat([fingerprint(["x"], x).thumbnails for x in judge.values()])),
    }
    with pytest.raises(LeakError) as caught:
        refuse_leak(sets)
    assert [problem.partition(" (")[0] for problem in caught.value.problems] == [
        "train and judge: t1 = copy of t1",
        "anchor and judge: a0 = copy of a0",
    ]
    message = str(caught.value)
    assert "mirrored" in caught.value.problems[0]
    assert "out of one of the two" in message
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is LeakError
    assert str(again) == message
    with pytest.raises(LeakError, match="1 problem in sets"):
        refuse_leak(sets, allow=[("copy of t1", "t1")])
    refuse_leak(sets, allow=[("copy of t1", "t1"), ("a0", "copy of a0")])


def save(folder, name, image, **options):
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(folder / name, **options)
    return folder / name


def test_files_are_fingerprinted_like_tensors_whatever_their_kind(tmp_path, photographs):
    png = save(tmp_path, "a.png", photographs[0])
    big = save(tmp_path, "big.png", resized(photographs[1:2], 1200, 1600)[0])
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter, clockwise
    turned = save(tmp_path, "turned.jpg", photographs[2].rot90(1, (1, 2)), exif=exif, quality=95)
    deep = tmp_path / "deep.png"
    Image.fromarray((photographs[4, 0] * 65535).round().to(torch.int32).numpy().astype(np.uint16)).save(deep)
    files = fingerprint_files([png, big, str(turned), deep, png])
    assert files.names == tuple(str(path) for path in (png, big, turned, deep))
    expected = content_hash(photographs[[0, 1, 2, 4]])
    assert (codes(files.thumbnails) ^ expected).sum(1).max() <= 2


def test_leaks_between_folders_are_found_and_unreadable_files_listed_together(tmp_path, photographs):
    train = [save(tmp_path, f"{i}.png", photographs[i]) for i in range(3)]
    judge = [save(tmp_path, "copy.jpg", photographs[2], quality=20), save(tmp_path, "other.png", photographs[3])]
    with pytest.raises(LeakError, match=r"2\.png = .*copy\.jpg \(distance"):
        refuse_leak({"train": fingerprint_files(train), "judge": fingerprint_files(judge)})
    refuse_leak({"train": fingerprint_files(train[:2]), "judge": fingerprint_files(judge)})
    (tmp_path / "broken.png").write_bytes(b"not an image")
    save(tmp_path, "tiny.png", photographs[0, :, :8, :8])
    with pytest.raises(ConfigError) as caught:
        fingerprint_files([tmp_path / "broken.png", train[0], tmp_path / "absent.png", tmp_path / "tiny.png"])
    for name, problem in zip(("broken", "absent", "tiny"), caught.value.problems, strict=True):
        assert f"{name}.png: " in problem


def test_wrong_inputs_are_refused(photographs):
    prints = fingerprint(NAMES, photographs)
    for images in (photographs[:, :2], photographs[0], photographs[..., :10], (photographs * 255).byte()):
        with pytest.raises(InputError, match="expected floating-point RGB"):
            fingerprint(NAMES, images)
    with pytest.raises(InputError, match="NaN"):
        fingerprint(NAMES, photographs / 0)
    with pytest.raises(InputError, match="more than once: a"):
        fingerprint(["a", "b", "a"], photographs[:3])
    with pytest.raises(InputError, match="2 names"):
        fingerprint(["a", "b"], photographs[:3])
    with pytest.raises(InputError, match="threshold"):
        find_duplicates(prints, prints, threshold=65)
