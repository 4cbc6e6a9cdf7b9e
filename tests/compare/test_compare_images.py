"""What images are refused and why, and that the others are read exactly."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms, ImageOps
from png16 import png16

from perceptloss.compare.images import Policy, inspect, inspect_all, read
from perceptloss.compare.pixels import as_tensor, luma, resize
from perceptloss.errors import InputError

OPEN = Policy(exif="apply", grey="replicate")


def reasons(path: Path, policy: Policy = Policy()) -> str:  # noqa: B008
    file, problems = inspect(path, policy)
    assert (file is None) == bool(problems)
    assert all(str(path) in problem for problem in problems)
    if file is None:  # the reader says what the check said
        with pytest.raises(InputError) as caught:
            read(path, policy)
        assert str(caught.value) == "\n".join(problems)
    else:
        assert read(path, policy).shape == (*file.size, 3)
    return "\n".join(problems)


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "ppm"])
def test_lossless_8_bit_is_value_over_255(tmp_path, noise, ending):
    pixels = noise((9, 7, 3))
    path = tmp_path / f"a.{ending}"
    Image.fromarray(pixels).save(path)
    file, problems = inspect(path, Policy())
    assert not problems
    assert (file.height, file.width, file.mode) == (9, 7, "rgb8")
    expected = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    assert torch.equal(as_tensor(read(path, Policy())), expected)


@pytest.mark.parametrize("shape", [(9, 7, 3), (9, 7)])
def test_16_bit_png_keeps_all_bits(tmp_path, shape):
    pixels = np.random.default_rng(1).integers(0, 65536, shape).astype(np.uint16)
    png16(tmp_path / "a.png", pixels)
    file, problems = inspect(tmp_path / "a.png", OPEN)
    assert not problems
    assert file.depth == 16
    planes = np.broadcast_to(pixels.reshape(9, 7, -1), (9, 7, 3)).astype(np.float32)
    expected = torch.from_numpy(planes / np.float32(65535)).permute(2, 0, 1)
    assert torch.equal(as_tensor(read(tmp_path / "a.png", OPEN)), expected)


def test_16_bit_rgb_tiff_is_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((8, 8, 3), np.uint16), photometric="rgb")
    assert "16-bit TIFF" in reasons(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("mode", "word"),
    [("RGBA", "alpha"), ("LA", "alpha"), ("P", "palette"), ("1", "bilevel"), ("L", "grey"), ("CMYK", "mode CMYK")],
)
def test_other_modes_are_refused(tmp_path, mode, word):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (8, 8)).save(path)
    assert word in reasons(path)


def test_transparent_colour_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", transparency=(0, 0, 0))
    assert "alpha" in reasons(tmp_path / "a.png")


def test_grey_is_replicated_when_asked(tmp_path, noise):
    pixels = noise((8, 6))
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = as_tensor(read(tmp_path / "a.png", OPEN))
    assert image.shape == (3, 8, 6)
    for plane in image:
        assert torch.equal(plane, torch.from_numpy(pixels).float() / 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_exif_rotation_is_refused_or_applied(tmp_path, noise, orientation, ending):
    image = Image.fromarray(noise((8, 6, 3)))
    tags = image.getexif()
    tags[0x0112] = orientation
    path = tmp_path / f"a.{ending}"
    image.save(path, exif=tags)
    assert ("EXIF" in reasons(path)) == (orientation != 1)
    file, problems = inspect(path, OPEN)
    assert not problems
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    assert file.size == upright.shape[:2]
    assert torch.equal(as_tensor(read(path, OPEN)), torch.from_numpy(upright.copy()).permute(2, 0, 1).float() / 255)


def test_only_srgb_profiles_are_accepted(tmp_path):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    at = srgb.index(b"rXYZ"), srgb.index(b"gXYZ")
    swapped = bytearray(srgb)
    for one, other in (at, at[::-1]):
        swapped[one + 4 : one + 12] = srgb[other + 4 : other + 12]
    for name, profile in (("srgb", srgb), ("swapped", bytes(swapped)), ("broken", b"not a profile")):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{name}.png", icc_profile=profile)
    assert reasons(tmp_path / "srgb.png") == ""
    assert "ICC profile" in reasons(tmp_path / "swapped.png")
    assert "ICC profile" in reasons(tmp_path / "broken.png")


def test_damaged_and_foreign_files_are_all_reported(tmp_path, noise):
    whole = io.BytesIO()
    Image.fromarray(noise((64, 64, 3))).save(whole, "PNG")
    (tmp_path / "cut.png").write_bytes(whole.getvalue()[:2000])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "good.png").write_bytes(whole.getvalue())
    paths = [tmp_path / f"{name}.png" for name in ("cut", "text", "empty", "good", "absent")]
    files, problems = inspect_all(paths, Policy())
    assert list(files) == [tmp_path / "good.png"]
    assert [path.name for path in paths if any(str(path) in p for p in problems)] == [
        "cut.png",
        "text.png",
        "empty.png",
        "absent.png",
    ]


def test_several_frames_are_refused(tmp_path):
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (1, 2)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert "frames" in reasons(tmp_path / "a.png")


def test_luma_is_that_of_basicsr(noise):
    pixels = noise((5, 4, 3)).astype(np.float32) / 255
    expected = (np.dot(pixels[..., ::-1], [24.966, 128.553, 65.481]) + 16) / 255  # on BGR, as its bgr2ycbcr
    got = luma(torch.from_numpy(pixels).permute(2, 0, 1))
    assert got.shape == (3, 5, 4)
    for plane in got:
        np.testing.assert_allclose(plane.numpy(), expected, atol=1e-6)
    assert luma(torch.ones(3, 1, 1)).max().item() == pytest.approx(235 / 255)


def test_resize_is_bicubic_and_clamped():
    step = torch.zeros(3, 8, 8)
    step[..., 4:] = 1
    big = resize(step, 16, 24)
    assert big.shape == (3, 16, 24)
    assert big.min() == 0
    assert big.max() == 1
    plane = Image.fromarray(step[0].numpy()).resize((24, 16), Image.Resampling.BICUBIC)
    assert np.asarray(plane).max() > 1.01  # the filter overshoots, so the clamp matters
    np.testing.assert_array_equal(big[1].numpy(), np.clip(np.asarray(plane), 0, 1))


@pytest.mark.parametrize(
    ("mode", "policy"),
    [
        ("P", Policy(palette="expand")),
        ("1", Policy(palette="expand", grey="replicate")),
        ("RGBA", Policy(alpha="drop")),
        ("LA", Policy(alpha="drop", grey="replicate")),
    ],
)
def test_what_a_policy_allows_is_read_as_pillow_converts_it(tmp_path, noise, mode, policy):
    image = Image.fromarray(noise((8, 6, 4))).convert(mode if mode != "P" else "RGB")
    image = image.quantize(7) if mode == "P" else image
    image.save(tmp_path / "a.png")
    assert reasons(tmp_path / "a.png") != ""
    assert reasons(tmp_path / "a.png", policy) == ""
    plain = image.convert("L") if mode == "LA" else image
    np.testing.assert_array_equal(read(tmp_path / "a.png", policy), np.asarray(plain.convert("RGB")))


def test_profiles_are_ignored_and_16_bits_rounded_where_the_policy_says_so(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", icc_profile=b"not a profile")
    assert "ICC profile" in reasons(tmp_path / "a.png")
    assert reasons(tmp_path / "a.png", Policy(profile="ignore")) == ""
    levels = np.arange(65536).astype(np.uint16).reshape(128, 512)
    png16(tmp_path / "grey.png", levels)
    found = read(tmp_path / "grey.png", Policy(grey="replicate", depth="round"))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[..., 0], np.round(levels / 257))


def test_headers_tell_size_and_kind_but_not_damage(tmp_path, noise):
    tags = Image.Exif()
    tags[0x0112] = 6
    for name in ("a.jpg", "a.tif"):
        Image.fromarray(noise((32, 20, 3))).save(tmp_path / name, exif=tags)
        file, problems = inspect(tmp_path / name, OPEN, decode=False)
        assert not problems
        assert (file.size, file.sha256) == ((20, 32), "")
        assert read(tmp_path / name, OPEN).shape == (20, 32, 3)
    Image.fromarray(noise((64, 64, 3))).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-4000])
    assert inspect(tmp_path / "cut.png", OPEN, decode=False)[0].size == (64, 64)
    assert inspect(tmp_path / "cut.png", OPEN)[0] is None


def test_a_picture_with_a_preview_is_one_picture(tmp_path, noise):
    picture, preview = (Image.fromarray(noise((16, 16, 3), seed)) for seed in (0, 1))
    picture.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    picture.save(tmp_path / "b.jpg")
    np.testing.assert_array_equal(read(tmp_path / "a.jpg", Policy()), read(tmp_path / "b.jpg", Policy()))


def test_a_decoder_may_shrink_a_photograph_on_the_way(tmp_path, noise):
    Image.fromarray(noise((520, 800, 3))).save(tmp_path / "a.jpg")
    assert read(tmp_path / "a.jpg", Policy(), least=128).shape == (130, 200, 3)


@pytest.mark.parametrize(
    "head",
    [
        b"P6\n# made by hand\n3 2\n255\n",
        b"P6 # a\r3#b\n 2\r\n# 65535\n255\n",
        b"P6\n3 2 #" + b"x" * 9000 + b"\n255\n",
        b"P6\n3 2\n2#5\n55\n",
    ],
)
def test_comments_in_a_header_are_no_numbers(tmp_path, noise, head):
    pixels = noise((2, 3, 3))
    (tmp_path / "a.ppm").write_bytes(head + pixels.tobytes())
    assert reasons(tmp_path / "a.ppm") == ""
    assert np.array_equal(read(tmp_path / "a.ppm", Policy()), pixels)


@pytest.mark.parametrize("ending", ["png", "jpg", "tif"])
@pytest.mark.parametrize("orientation", [9, 255])
def test_an_orientation_that_does_not_exist_is_refused_by_every_policy(tmp_path, noise, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(noise((9, 7, 3))).save(tmp_path / f"a.{ending}", exif=exif)
    for policy in (Policy(), OPEN):
        assert f"names orientation {orientation}, expected 1 to 8" in reasons(tmp_path / f"a.{ending}", policy)


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    assert "expected a regular file, got a folder, pipe or device" in reasons(tmp_path / "a.png")
