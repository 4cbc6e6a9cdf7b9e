"""The command `map`: what it writes where, in which colours, what it says, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rounding import assert_same
from toys import toy

from perceptloss import create_critic, registry
from perceptloss.card import Card
from perceptloss.cli.main import main
from perceptloss.critic import Entry
from perceptloss.maps.attribution import attribution, sensitivity
from perceptloss.maps.colours import DIVERGING, SEQUENTIAL, Colours, Scale, draw
from perceptloss.maps.drawn import map_of


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Folders gt and out of two images of 48x40, damaged in the middle; the working directory is theirs."""
    monkeypatch.chdir(tmp_path)
    for name in ("gt", "out"):
        Path(name).mkdir()
    for n in range(2):
        rows, columns = np.mgrid[0:48, 0:40]
        waves = 120 + 90 * np.sin(rows / (3 + n))[..., None] * np.cos(columns[..., None] / np.array([4, 5, 6]))
        pixels = waves.astype(np.uint8)
        Image.fromarray(pixels).save(f"gt/im{n}.png")
        pixels[16:32, 10:30] = np.random.default_rng(n).integers(0, 256, (16, 20, 3))
        Image.fromarray(pixels).save(f"out/im{n}.png")
    return tmp_path


def tensor(path: str) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(path)).astype(np.float32) / 255).permute(2, 0, 1)[None]


def pixels(path: str | Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def lightness(colour: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB colours, (..., 3) in 0 ... 255."""
    c = np.asarray(colour) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.2126, 0.7152, 0.0722])
    return 116 * np.where(y > 0.008856, np.cbrt(y), 7.787 * y + 16 / 116) - 16


def colours_of(table: Colours, steps: int = 101) -> np.ndarray:
    values = torch.linspace(0, 1, steps)[None]
    return draw(values, Scale(0.0, 1.0, table), (1, steps)).numpy()[0].astype(int)


class TestColours:
    def test_sequential_grows_lighter_in_even_steps(self):
        light = lightness(colours_of(SEQUENTIAL))
        assert (np.diff(light) > 0.3).all()
        assert np.diff(light).max() < 2.5
        assert light[0] < 10
        assert light[-1] > 90

    def test_diverging_is_lightest_at_0_and_as_dark_on_either_side(self):
        light = lightness(colours_of(DIVERGING))
        assert light.argmax() == 50
        assert (np.diff(light[:51]) > 0).all()
        assert (np.diff(light[50:]) < 0).all()
        assert np.abs(light - light[::-1]).max() < 6

    def test_sides_of_the_diverging_table_differ_for_those_who_see_no_red_or_no_green(self):
        colours = colours_of(DIVERGING)
        yellow_minus_blue = colours[:, :2].mean(1) - colours[:, 2]  # what dichromats keep beside lightness
        assert (yellow_minus_blue[:40] < -15).all()
        assert (yellow_minus_blue[61:] > 15).all()

    def test_values_between_and_beyond_the_ends(self):
        values = torch.tensor([[0.0, 0.1, 0.5, 1.0, 7.0, -3.0]])
        scale = Scale(1.0, 0.0)
        picture = draw(values, scale, (1, 6))[0].tolist()
        assert picture[3] == picture[4] == list(SEQUENTIAL[0])
        assert picture[0] == picture[5] == list(SEQUENTIAL[-1])
        halfway = [(a + b) / 2 for a, b in zip(SEQUENTIAL[2], SEQUENTIAL[3], strict=True)]
        assert picture[2] == pytest.approx(halfway, abs=0.51)
        assert scale.beyond(values) == 2
        assert draw(torch.zeros(1, 1), Scale(-2.0, 2.0, DIVERGING), (1, 1)).flatten().tolist() == list(DIVERGING[2])

    def test_a_flat_map_has_one_colour(self):
        ones = torch.ones(2, 2)
        assert (draw(ones, Scale(1.0, 1.0), (2, 2)) == torch.tensor(SEQUENTIAL[0])).all()
        assert (draw(0 * ones, Scale(0.0, 0.0, DIVERGING), (2, 2)) == torch.tensor(DIVERGING[2])).all()

    def test_cells_become_blocks(self):
        picture = draw(torch.tensor([[0.0, 1.0]]), Scale(0.0, 1.0), (3, 4))
        assert (picture[:, :2] == torch.tensor(SEQUENTIAL[0])).all()
        assert (picture[:, 2:] == torch.tensor(SEQUENTIAL[-1])).all()

    def test_an_overlay_shows_the_image_where_it_is_good(self):
        image = torch.full((3, 1, 3), 0.4)
        image[0, 0, 1] = 1.0
        picture = draw(torch.tensor([[0.0, 0.0, 1.0]]), Scale(0.0, 1.0), (1, 3), image).float()[0]
        assert (picture[0] == 102).all()
        assert (picture[1] == round(255 * (0.299 + 0.701 * 0.4))).all()
        expected = 0.15 * 102 + 0.85 * torch.tensor(SEQUENTIAL[-1]).float()
        torch.testing.assert_close(picture[2], expected.round())
        signed = draw(torch.tensor([[0.0, -1.0, 1.0]]), Scale(-1.0, 1.0, DIVERGING), (1, 3), image).float()[0]
        assert (signed[0] == 102).all()
        assert signed[1, 2] > 130 > 90 > signed[2, 2]


class TestTiles:
    def test_native_maps_of_tiles_are_put_together(self, photos):
        critic = create_critic("lpips-squeeze", weights=None)
        x, y = tensor("out/im0.png").repeat(1, 1, 2, 2), tensor("gt/im0.png").repeat(1, 1, 2, 2)
        whole = map_of(critic, x, y, 64)
        assert whole.shape == (1, 1, 96, 80)
        for rows in (slice(0, 48), slice(48, 96)):
            part = (..., rows, slice(0, 40))
            torch.testing.assert_close(whole[part], critic.maps(x[part], y[part]))
        torch.testing.assert_close(map_of(critic, x, y, 96), critic.maps(x, y))

    def test_smaller_maps_are_enlarged_to_the_pixels_of_their_tile(self, photos):
        critic = create_critic("gmsd")
        x, y = tensor("out/im0.png"), tensor("gt/im0.png")
        found = map_of(critic, x, y, 24)
        assert found.shape == (1, 1, 48, 40)
        part = (..., slice(0, 24), slice(0, 20))
        cells = critic.maps(x[part], y[part])
        assert_same(found[part], cells.repeat_interleave(2, 2).repeat_interleave(2, 3))

    def test_shares_of_tiles_add_up_to_the_mean_over_tiles(self, photos):
        from perceptloss.maps.tiles import score_tiled

        critic = toy("error", lambda x, y: (x - y).square().mean((1, 2, 3)), kind="fr", better="lower")
        x, y = tensor("out/im0.png"), tensor("gt/im0.png")
        found = map_of(critic, x, y, 30)
        assert found.shape == (1, 1, 48, 40)
        assert found.sum().item() == pytest.approx(score_tiled(critic, x, y, tile=30).item(), rel=1e-5)
        torch.testing.assert_close(found, attribution(critic, x, y))


class TestWhatIsWritten:
    def test_a_native_map_as_numbers(self, photos, capsys):
        assert main(["map", "out/im0.png", "--ref", "gt/im0.png", "-c", "ssim", "--output", "one.npy"]) == 0
        values = np.load("one.npy")
        expected = create_critic("ssim").maps(tensor("out/im0.png"), tensor("gt/im0.png"))[0, 0]
        assert values.dtype == np.float32
        assert values.shape == (38, 30)
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "ssim: its own quality map, higher is better"
        assert lines[1].startswith(f"  one.npy: 38x30 cells, {values.min():.4g} to 1, mean ")
        assert lines[2].startswith("  ssim|weights:none|")

    def test_pictures_of_a_folder_share_one_scale(self, photos, capsys):
        assert main(["map", "out", "--ref", "gt", "-c", "ssim", "-c", "gmsd", "--output", "maps"]) == 0
        names = {path.name for path in Path("maps").iterdir()}
        assert names == {f"im{n}.{critic}.png" for n in range(2) for critic in ("ssim", "gmsd")}
        critic = create_critic("ssim")
        raw = [critic.maps(tensor(f"out/im{n}.png"), tensor(f"gt/im{n}.png"))[0, 0] for n in range(2)]
        scale = Scale(max(m.max().item() for m in raw), min(m.min().item() for m in raw))
        assert scale.first > scale.last
        for n in range(2):
            found = pixels(f"maps/im{n}.ssim.png")
            assert found.shape == (48, 40, 3)
            assert np.abs(found - draw(raw[n], scale, (48, 40)).numpy()).max() <= 1
        out = capsys.readouterr().out
        assert f"colours: 1 (best, dark) to {scale.last:.4g} (worst, bright), the same for all images" in out
        about = Image.open("maps/im0.ssim.png").text
        assert about["critic"].startswith("ssim|weights:none|")
        assert float(about["scale"].partition(" to ")[0]) == pytest.approx(1, rel=1e-5)

    def test_damage_is_bright_whichever_way_the_score_goes(self, photos):
        command = ["map", "out/im0.png", "--ref", "gt/im0.png", "--random-weights", "--output", "."]
        assert main([*command, "-c", "gmsd", "-c", "lpips-squeeze", "-c", "haarpsi"]) == 0
        for critic in ("gmsd", "lpips-squeeze", "haarpsi"):
            light = lightness(pixels(f"im0.{critic}.png"))
            assert light[20:28, 14:26].mean() > light[:8].mean() + 10

    def test_an_attribution_says_so_and_adds_up(self, photos, capsys):
        command = ["map", "out/im0.png", "--ref", "gt/im0.png", "-c", "nlpd", "-c", "psnr", "--format", "npy"]
        small = create_critic("psnr")
        assert main([*command[:4], *command[6:]]) == 0
        values = np.load("im0.psnr.npy")
        x, y = tensor("out/im0.png"), tensor("gt/im0.png")
        np.testing.assert_allclose(values, attribution(small, x, y)[0, 0], rtol=1e-4, atol=1e-7)
        assert values[:16].any() is np.False_
        out = capsys.readouterr().out
        assert "psnr: attribution, not a quality map: shares of score minus score of the reference, higher is" in out
        difference = (small(x, y) - small(y, y)).item()
        assert f"sum {values.sum(dtype=np.float64):.4g} of a difference of {difference:.4g}" in out
        assert main(command) == 2  # nlpd needs 65 pixels
        assert "at least 65x65" in capsys.readouterr().err

    def test_attribution_is_orange_where_it_is_worse(self, photos, capsys):
        assert main(["map", "out/im0.png", "--ref", "gt/im0.png", "-c", "psnr", "--output", "a.png"]) == 0
        found = pixels("a.png")
        assert (found[:16] == DIVERGING[2]).all()
        inside = found[18:30, 12:28]
        assert (inside[..., 0] > inside[..., 2]).mean() > 0.9
        out = capsys.readouterr().out
        assert "(better, blue) to 0 (white) to -" in out
        assert "(worse, orange)" in out

    def test_a_critic_without_reference(self, photos, capsys):
        assert main(["map", "out/im0.png", "-c", "tv", "--format", "npy"]) == 0
        expected = sensitivity(create_critic("tv"), tensor("out/im0.png"))[0, 0]
        np.testing.assert_allclose(np.load("im0.tv.npy"), expected, rtol=1e-4, atol=1e-7)
        assert "tv: sensitivity, not a quality map" in capsys.readouterr().out
        assert main(["map", "out/im0.png", "-c", "tv", "--ref", "gt/im0.png", "--output", "from.npy"]) == 0
        from_reference = attribution(create_critic("tv"), tensor("out/im0.png"), tensor("gt/im0.png"))[0, 0]
        np.testing.assert_allclose(np.load("from.npy"), from_reference, rtol=1e-4, atol=1e-6)

    def test_an_overlay_keeps_the_undamaged_image_in_grey(self, photos):
        command = ["map", "out/im0.png", "--ref", "gt/im0.png", "-c", "psnr", "--overlay", "--output", "over.png"]
        assert main(command) == 0
        found = pixels("over.png")
        grey = np.einsum("hwc,c->hw", pixels("out/im0.png"), [0.299, 0.587, 0.114])
        assert np.abs(found[:16] - grey[:16, :, None]).max() <= 1
        assert (found[18:30, 12:28].max(-1) > found[18:30, 12:28].min(-1)).mean() > 0.9

    def test_a_fixed_range(self, photos, capsys):
        command = ["map", "out/im0.png", "--ref", "gt/im0.png", "-c", "ssim", "--output"]
        assert main([*command, "fixed.png", "--range", "0.9", "1"]) == 0
        critic = create_critic("ssim")
        values = critic.maps(tensor("out/im0.png"), tensor("gt/im0.png"))[0, 0]
        scale = Scale(1.0, 0.9)
        assert np.abs(pixels("fixed.png") - draw(values, scale, (48, 40)).numpy()).max() <= 1
        out = capsys.readouterr().out
        assert "colours: 1 (best, dark) to 0.9 (worst, bright)\n" in out
        beyond = int(((values < 0.9) | (values > 1)).sum())
        assert f", {beyond} cells beyond the colours" in out

    def test_images_are_read_as_when_they_are_scored(self, photos):
        command = ["map", "out/im0.png", "--ref", "gt/im0.png", "-c", "ssim", "--crop-border", "4", "--colour", "y"]
        assert main([*command, "--output", "y.npy"]) == 0
        assert np.load("y.npy").shape == (30, 22)

    def test_tiles(self, photos):
        command = ["map", "out/im0.png", "--ref", "gt/im0.png", "-c", "mdsi", "-c", "haarpsi", "--format", "npy"]
        assert main([*command, "--tile", "40"]) == 2  # mdsi must see whole images
        assert main([*command[:4], *command[6:], "--tile", "40"]) == 0
        assert np.load("im0.haarpsi.npy").shape == (48, 40)

    def test_recursive_keys_become_folders(self, photos):
        for name in ("gt", "out"):
            Path(name, "sub").mkdir()
            Path(name, "im1.png").rename(Path(name, "sub", "im1.png"))
        assert main(["map", "out", "--ref", "gt", "-c", "ssim", "--recursive", "--output", "maps"]) == 0
        assert Path("maps/sub/im1.ssim.png").is_file()


class TestRefusals:
    COMMAND = ("map", "out", "--ref", "gt", "-c", "ssim")

    def test_nothing_is_overwritten_without_force(self, photos, capsys):
        Path("im1.ssim.png").write_bytes(b"mine")
        assert main([*self.COMMAND]) == 2
        assert "im1.ssim.png is there already; --force overwrites it" in capsys.readouterr().err
        assert not Path("im0.ssim.png").exists(), "all is checked before the first is written"
        assert Path("im1.ssim.png").read_bytes() == b"mine"
        assert main([*self.COMMAND, "--force"]) == 0
        assert pixels("im1.ssim.png").shape == (48, 40, 3)

    def test_judged_images_are_never_overwritten(self, photos, capsys):
        before = Path("gt/im0.png").read_bytes()
        command = ["map", "out/im0.png", "--ref", "gt/im0.png", "-c", "ssim", "--force", "--output", "gt/im0.png"]
        assert main(command) == 2
        assert "gt/im0.png is an image of this run" in capsys.readouterr().err
        assert Path("gt/im0.png").read_bytes() == before

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--output", "one.png"], "'one.png' is one file for 2 maps: give a folder"),
            (["--output", "maps.jpg"], "must be a folder or end in .png or .npy, got 'maps.jpg'"),
            (["--output", "no/where"], "there is no folder 'no'"),
            (["--output", "one.npy", "--format", "png"], "--format png does not go with --output 'one.npy'"),
            (["--format", "npy", "--overlay"], "--overlay draws"),
            (["--format", "npy", "--range", "0", "1"], "--range is about colours"),
            (["--range", "1", "0"], "the smaller one first, got 1 0"),
            (["-c", "gmsd", "--range", "0", "1"], "--range is for one critic"),
            (["--tile", "64"], "must see whole images"),
            (["-c", "ssin"], "did you mean 'ssim'"),
            (["--device", "warp"], "device 'warp' cannot be used"),
            (["--overlai"], "did you mean '--overlay'"),
        ],
    )
    def test_what_does_not_fit_is_named(self, photos, capsys, more, message):
        assert main([*self.COMMAND, *more]) == 2
        out, err = capsys.readouterr()
        assert message in err
        assert out == ""
        assert {path.name for path in photos.iterdir()} == {"gt", "out"}

    def test_a_range_of_signed_values_has_0_in_its_middle(self, photos, capsys):
        command = ["map", "out/im0.png", "--ref", "gt/im0.png", "-c", "psnr", "--range"]
        assert main([*command, "0", "0.1"]) == 2
        assert "0 in its middle, such as -0.1 0.1, got 0 0.1" in capsys.readouterr().err
        assert main([*command, "-0.1", "0.1"]) == 0
        assert "colours: 0.1 (better, blue) to 0 (white) to -0.1 (worse, orange)" in capsys.readouterr().out

    def test_pairs_are_checked_as_for_scores(self, photos, capsys):
        Path("out/im1.png").rename("out/im7.png")
        assert main([*self.COMMAND]) == 2
        err = capsys.readouterr().err
        assert "'im1' is missing" in err
        assert "'im7' is extra" in err
        assert main([*self.COMMAND, "--allow-missing"]) == 0
        assert "'im1' was left out" in capsys.readouterr().err
        assert not list(photos.glob("im1*"))
        assert main(["map", "out", "-c", "ssim"]) == 2
        assert "give --ref" in capsys.readouterr().err

    def test_missing_weights_exit_with_3(self, photos, capsys, monkeypatch):
        monkeypatch.setattr("torch.hub.get_dir", lambda: str(photos / "hub"))
        monkeypatch.setenv("PERCEPTLOSS_CACHE", str(photos / "empty"))
        monkeypatch.delenv("PERCEPTLOSS_HOME", raising=False)
        assert main(["map", "out", "--ref", "gt", "-c", "lpips-alex"]) == 3
        assert "alexnet" in capsys.readouterr().err

    def test_a_map_that_is_not_finite_is_not_written(self, photos, capsys, monkeypatch):
        def build(card: Card):
            return toy("sour", lambda x, y: x.mean((1, 2, 3)) * torch.where(x[0, 0, 0, 0] > 0.3, torch.nan, 1.0))

        card = build(None).card
        monkeypatch.setitem(registry._registered, "sour", Entry(card, build))
        picture = pixels("out/im1.png").astype(np.uint8)
        picture[0, 0] = 0
        Image.fromarray(picture).save("out/im1.png")
        assert main(["map", "out", "-c", "sour"]) == 1
        out, err = capsys.readouterr()
        assert "the map of 'im0' is not finite and was not written" in err
        assert "im1.sour.png" in out
        assert [path.name for path in photos.glob("*.png")] == ["im1.sour.png"]

    def test_quiet(self, photos, capsys):
        Path("out/im0.png").write_bytes(Path("gt/im0.png").read_bytes())
        assert main([*self.COMMAND]) == 0
        assert "is the reference file itself" in capsys.readouterr().err
        assert main([*self.COMMAND, "--force", "--quiet"]) == 0
        assert capsys.readouterr().err == ""
