"""The numbers: equal to the critic itself, whatever the batch, tile, cache or way in."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from judges import CARDS, Brightness
from PIL import Image

from perceptloss import create_critic
from perceptloss.compare import Pairing, Settings, compare, join, merge, score, score_pairs
from perceptloss.compare.pixels import luma
from perceptloss.compare.plan import make_plan
from perceptloss.compare.processes import Launched
from perceptloss.compare.run import run_plan
from perceptloss.compare.summary import summarise
from perceptloss.compare.table import render
from perceptloss.critic import Critic
from perceptloss.errors import ConfigError, InputError
from perceptloss.maps.tiles import tiled
from perceptloss.networks.tiles import edges
from perceptloss.networks.trunks import TrunkCritic
from perceptloss.networks.trunks.critic import references_kept

ROOT = Path(__file__).parents[2]


@pytest.fixture
def photos(tmp_path, noise):
    """Three random images and two damaged versions of each, with sizes that differ between images."""
    for n, size in enumerate([(40, 48), (40, 48), (44, 40)]):
        for name, spread in (("gt", 0), ("near", 8), ("far", 60)):
            (tmp_path / name).mkdir(exist_ok=True)
            change = np.random.default_rng(n + spread).integers(-spread, spread + 1, (*size, 3))
            pixels = np.clip(noise((*size, 3), n).astype(int) + change, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"im{n}.png")
    return tmp_path


def tensor(path):
    return torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)[None].float() / 255


def test_scores_are_those_of_the_critic(photos):
    results = compare(
        {"near": photos / "near", "far": photos / "far"},
        photos / "gt",
        ["lpips-squeeze", "ssim"],
        random_weights=True,
    )
    assert np.array(results.values).shape == (2, 2, 3)
    critics = [create_critic("lpips-squeeze", None), create_critic("ssim")]
    for s, name in enumerate(results.systems):
        for c, critic in enumerate(critics):
            for i, image in enumerate(results.images):
                pair = (tensor(photos / where / f"{image.key}.png") for where in (name, "gt"))
                assert results.values[s][c][i] == pytest.approx(critic(*pair).item(), abs=1e-6)
    assert results.baseline == "near"
    np.testing.assert_array_equal(results.array(), results.values)
    assert results.scores("far", "ssim") == results.values[1][1]


@pytest.mark.thorough
def test_any_number_of_workers_gives_the_same_bits(photos, tmp_path):
    plan = make_plan(
        {"near": photos / "near", "far": photos / "far"},
        photos / "gt",
        ["lpips-squeeze", "ssim"],
        rules=Pairing(),
        settings=Settings(),
    )
    cache = tmp_path / "cache"
    run = partial(run_plan, plan, random_weights=True)
    alone, first = run(), run(workers=1)
    several, cached = run(workers=2, cache=cache), run(workers=2, cache=cache)
    assert first.values == several.values == cached.values
    np.testing.assert_allclose(first.array(), alone.array(), rtol=1e-5)
    assert sum(len(file.read_text().splitlines()) for file in cache.iterdir()) == 2 * (1 + 6)  # nothing written twice


def test_a_reference_is_looked_at_once_for_all_systems(photos, monkeypatch):
    looks = []
    look = TrunkCritic.look
    monkeypatch.setattr(TrunkCritic, "look", lambda self, image: looks.append(image.data_ptr()) or look(self, image))
    systems = {name: photos / name for name in ("near", "far")}
    together = compare(systems, photos / "gt", ["lpips-squeeze"], random_weights=True)
    assert len(looks) == 3 * 3
    apart = [compare({n: s}, photos / "gt", ["lpips-squeeze"], random_weights=True) for n, s in systems.items()]
    assert together.values == tuple(result.values[0] for result in apart)
    other = create_critic("lpips-squeeze", None)  # in place, a reference is another image
    x, y = tensor(photos / "near" / "im0.png"), tensor(photos / "gt" / "im0.png")
    with torch.no_grad(), references_kept([other]):
        first = other(x, y)
        y.mul_(0.5)
        assert other(x, y) != first
    assert other._last is None


def test_a_single_picture_is_not_copied(photos):
    class Watching(Brightness):
        def score(self, x, y=None):
            self.seen = x.data_ptr()
            return super().score(x, y)

    critic = Watching(CARDS["toy-light"])
    x = tensor(photos / "gt" / "im0.png")
    score_pairs([("a", x, None)], [critic])
    assert critic.seen == x.data_ptr()


@pytest.mark.parametrize("batch", [2, 8])
def test_batches_change_nothing(photos, batch):
    systems = {"near": photos / "near", "far": photos / "far"}
    critics = ["lpips-squeeze", "gmsd"]
    one = compare(systems, photos / "gt", critics, random_weights=True)
    many = compare(systems, photos / "gt", critics, random_weights=True, settings=Settings(batch=batch))
    np.testing.assert_allclose(one.array(), many.array(), rtol=1e-5, atol=1e-7)


def test_batches_hold_equal_sizes_and_coupled_critics_see_one_image(toys, photos, monkeypatch):
    seen = []
    score_ = toys.score
    monkeypatch.setattr(toys, "score", lambda self, x, y=None: seen.append(len(x)) or score_(self, x, y))
    score(photos / "near", photos / "gt", ["toy-error"], settings=Settings(batch=4))
    assert seen == [2, 1]
    seen.clear()
    critic = create_critic("toy-error")
    object.__setattr__(critic.card, "couples_batch", True)
    try:
        score(photos / "near", photos / "gt", [critic], settings=Settings(batch=4))
    finally:
        object.__setattr__(critic.card, "couples_batch", False)
    assert seen == [1, 1, 1]


def test_border_colour_and_resize_are_applied_and_signed(toys, photos):
    ssim = create_critic("ssim")
    settings = Settings(crop_border=3, colour="y")
    results = score(photos / "far", photos / "gt", [ssim], settings=settings)
    for value, image in zip(results.values[0][0], results.images, strict=True):
        pair = (luma(tensor(photos / where / f"{image.key}.png")[..., 3:-3, 3:-3]) for where in ("far", "gt"))
        assert value == pytest.approx(ssim(*pair).item(), abs=1e-6)
    assert "|y-bt601|" in results.critics[0].signature
    assert "|crop:3|perceptloss:" in results.critics[0].signature
    small = Image.open(photos / "far" / "im0.png").resize((24, 20), Image.Resampling.BICUBIC)
    small.save(photos / "far" / "im0.png")
    results = score(photos / "far", photos / "gt", ["toy-error"], settings=Settings(resize="to-ref"))
    assert "|resize:to-ref-bicubic-clamped|" in results.critics[0].signature
    assert [(flag.kind, flag.image) for flag in results.flags] == [("resized", "im0")]
    planes = [
        Image.fromarray(plane.numpy()).resize((48, 40), Image.Resampling.BICUBIC)
        for plane in tensor(photos / "far/im0.png")[0]
    ]
    x = torch.from_numpy(np.stack(planes)).clamp(0, 1)
    assert results.values[0][0][0] == pytest.approx(
        (x - tensor(photos / "gt/im0.png")[0]).abs().mean().item(), abs=1e-6
    )


def test_tiles_are_even_and_weighted_by_area(toys, photos):
    assert edges(100, 40) == [0, 33, 66, 100]
    assert edges(40, 40) == [0, 40]
    assert edges(96, 40, 16) == [0, 32, 64, 96]
    assert edges(48, 40, 16) == [0, 16, 48]
    image = torch.rand(2, 3, 37, 50)
    areas = []

    def mean(x, y):
        areas.append(x.shape[-2:].numel())
        return x.mean((1, 2, 3))

    torch.testing.assert_close(tiled(mean, image, None, 16), image.mean((1, 2, 3)).double(), atol=1e-6, rtol=0)
    assert sum(areas) == 37 * 50
    assert len(areas) == 12
    whole = score(photos / "far", photos / "gt", ["toy-error"])
    cut = score(photos / "far", photos / "gt", ["toy-error"], settings=Settings(tile=16))
    assert "|tile:16|" in cut.critics[0].signature
    np.testing.assert_allclose(cut.array(), whole.array(), atol=1e-6)


def test_a_second_run_takes_scores_from_the_cache(toys, photos, tmp_path):
    cache = tmp_path / "kept"
    systems = {"near": photos / "near", "far": photos / "far"}

    def run(**given):
        toys.scored = 0
        return compare(systems, photos / "gt", ["toy-error"], cache=cache, **given), toys.scored

    first, scored = run()
    assert scored == 6
    again, scored = run()
    assert scored == 0
    assert again.values == first.values
    _, scored = run(settings=Settings(crop_border=1))  # another signature
    assert scored == 6
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(photos / "far" / "im1.png")
    changed, scored = run()
    assert scored == 1
    assert changed.scores("far", "toy-error")[1] == pytest.approx(tensor(photos / "gt/im1.png").mean().item(), abs=1e-6)


def test_an_interrupted_run_goes_on(toys, photos, tmp_path, caplog, monkeypatch):
    cache = tmp_path / "kept"
    score_ = toys.score

    def stop_at_third(self, x, y=None):
        if type(self).scored == 2:
            raise KeyboardInterrupt
        return score_(self, x, y)

    monkeypatch.setattr(toys, "score", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        score(photos / "far", photos / "gt", ["toy-error"], cache=cache)
    monkeypatch.setattr(toys, "score", score_)
    (file,) = cache.iterdir()
    file.write_text(file.read_text()[:-10])  # the last line is cut off
    toys.scored = 0
    results = score(photos / "far", photos / "gt", ["toy-error"], cache=cache)
    assert toys.scored == 2
    assert "1 damaged lines" in caplog.text
    assert results.values == score(photos / "far", photos / "gt", ["toy-error"]).values
    toys.scored = 0
    score(photos / "far", photos / "gt", ["toy-error"], cache=cache)
    assert toys.scored == 0
    assert json.loads(file.read_text().splitlines()[0])["signature"] == results.critics[0].signature


def test_a_score_that_is_not_finite_is_missing_for_all(toys, folder):
    one, two = folder("one", a=51, b=255, c=102), folder("two", a=102, b=102, c=102)
    results = compare({"one": one, "two": two}, None, ["toy-light"])
    assert results.scores("one", "toy-light")[1] is None
    assert results.has_gaps
    assert [(f.kind, f.system, f.image, f.critic) for f in results.flags] == [("not-finite", "one", "b", "toy-light")]
    summary = results.to_dict()["summary"]["standings"]
    assert [cells["count"] for s in summary for cells in s["cells"]] == [2, 2]
    assert summary[0]["cells"][0]["mean"] == pytest.approx(0.3, abs=1e-6)
    assert summary[1]["cells"][0]["difference"] == pytest.approx(0.1, abs=1e-6)


def test_weights_of_ones_own_and_random_ones_are_signed(photos, tmp_path):
    from safetensors.torch import save_file

    critic = create_critic("lpips-squeeze", None)
    state = {key: value.clone().contiguous() for key, value in critic.state_dict().items()}
    state["heads.0"] *= 2
    save_file(state, tmp_path / "mine.safetensors")
    given = ["lpips-squeeze", f"lpips-squeeze={tmp_path / 'mine.safetensors'}"]
    results = score(photos / "far", photos / "gt", given, random_weights=True)
    random, mine = results.critics
    assert "weights:random-" in random.signature
    assert random.label == "lpips-squeeze@" + random.signature.split("|")[1].removeprefix("weights:")
    assert mine.signature.split("|")[1] not in (random.signature.split("|")[1], "weights:none")
    assert results.values[0][0] != results.values[0][1]
    with pytest.raises(ConfigError, match="twice"):
        score(photos / "far", photos / "gt", ["ssim", "ssim"])
    with pytest.raises(ConfigError, match="names no weights"):
        score(photos / "far", photos / "gt", ["lpips-squeeze="])


def test_options_are_signed_and_the_cache_tells_them_apart(photos, tmp_path):
    def scored(**options):
        critic = create_critic("charbonnier", options=options)
        return score(photos / "far", photos / "gt", [critic], cache=tmp_path / "kept")

    plain, squared = scored(), scored(criterion="l2")
    assert "|options:criterion=l2|" in squared.critics[0].signature
    assert squared.values[0][0] != plain.values[0][0]
    assert scored(criterion="charbonnier").critics == plain.critics, "the default, said or not, is one critic"
    critic = create_critic("swt", options={"weights": [1, 0, 0, 0], "wavelet": "haar"})
    (column,) = score(photos / "far", photos / "gt", [critic]).critics
    assert column.signature.startswith("swt|weights:none|options:wavelet=haar;weights=[1, 0, 0, 0]|rgb|")


def test_bf16_is_for_networks_that_allow_it_and_signed(toys, photos):
    settings = Settings(precision="bf16")
    results = score(photos / "far", photos / "gt", ["lpips-squeeze", "ssim"], random_weights=True, settings=settings)
    exact = score(photos / "far", photos / "gt", ["lpips-squeeze", "ssim"], random_weights=True)
    assert "bf16" in results.critics[0].signature
    assert results.critics[1].signature == exact.critics[1].signature
    assert results.values[0][0] != exact.values[0][0]
    np.testing.assert_allclose(results.array(), exact.array(), rtol=0.05)


def test_pairs_in_memory_give_the_same_scores(toys, photos):
    from_files = score(photos / "far", photos / "gt", ["ssim", "toy-light"])
    pairs = ((f"im{n}", tensor(photos / f"far/im{n}.png"), tensor(photos / f"gt/im{n}.png")[0][None]) for n in range(3))
    in_memory = score_pairs(pairs, ["ssim", "toy-light"], name="far")
    np.testing.assert_allclose(in_memory.array(), from_files.array(), atol=1e-7)
    alone = score_pairs([("a", torch.full((3, 9, 9), 0.25), None)], ["toy-light"])
    assert alone.values == (((0.25,),),)
    with pytest.raises(InputError, match=r"expected an image of shape"):
        score_pairs([("a", torch.rand(2, 3, 9, 9), None)], ["toy-light"])
    for wrong in (None, np.zeros((3, 9, 9))):
        with pytest.raises(InputError, match=r"a: expected an image of shape .* got (NoneType|ndarray)"):
            score_pairs([("a", wrong, None)], ["toy-light"])
    grey = [("a", torch.full((1, 9, 9), 0.25), None)]
    assert score_pairs(grey, ["toy-light"], settings=Settings(grey="replicate")).values == (((0.25,),),)
    with pytest.raises(InputError, match="grey"):
        score_pairs(grey, ["toy-light"])
    with pytest.raises(InputError, match="compares with a reference"):
        score_pairs([("a", torch.rand(3, 9, 9), None)], ["toy-error"])
    with pytest.raises(InputError, match=r"in \[0, 1\]"):
        score_pairs([("a", torch.rand(3, 9, 9) + 1, None)], ["toy-light"])
    with pytest.raises(ConfigError, match="'a' is there twice"):
        score_pairs([("a", torch.rand(3, 9, 9), None)] * 2, ["toy-light"])


def test_stereo_pairs_are_scored_in_memory_and_refused_as_single_images(toys, photos):
    stereo = Brightness(replace(CARDS["toy-light"], name="toy-stereo", kind="stereo-nr"))
    left, right = torch.full((3, 9, 9), 0.25), torch.full((3, 9, 9), 0.75)
    assert score_pairs([("a", torch.cat([left, right]), None)], [stereo]).values == (((0.5,),),)
    with pytest.raises(ConfigError, match="judges colour"):
        score_pairs([("a", torch.cat([left, right]), None)], [stereo], settings=Settings(colour="y"))
    with pytest.raises(ConfigError, match="stereo pairs, got single images: give --stereo"):
        score(photos / "far", None, [stereo])


def test_pairs_with_and_without_reference_mix_in_a_batch(toys):
    images = torch.rand(4, 3, 9, 9)
    pairs = [(str(n), x, images[0] if n % 2 else None) for n, x in enumerate(images)]
    results = score_pairs(pairs, ["toy-light"], settings=Settings(batch=4))
    np.testing.assert_allclose(results.values[0][0], images.mean((1, 2, 3)), atol=1e-6)


def test_results_of_systems_join(toys):
    def pairs(value):
        return [
            ("a", torch.full((3, 9, 9), value), torch.zeros(3, 9, 9)),
            ("b", torch.ones(3, 9, 9), torch.ones(3, 9, 9)),
        ]

    parts = [score_pairs(pairs(value), ["toy-error"], name=name) for name, value in (("old", 0.5), ("new", 0.25))]
    both = join(parts, baseline="old")
    assert both.systems == ("old", "new")
    assert both.values == (((0.5, 0.0),), ((0.25, 0.0),))
    assert both.to_dict()["summary"]["standings"][1]["cells"][0]["difference"] == -0.125
    with pytest.raises(ConfigError, match="old: there twice"):
        join([parts[0], parts[0]])
    other = score_pairs(pairs(0.5)[:1], ["toy-light"], name="other")
    with pytest.raises(ConfigError, match="2 problems"):
        join([parts[0], other])


def test_a_critic_object_keeps_its_own_settings(toys, photos):
    class Half(Critic):
        def score(self, x, y=None):
            return x.mean((1, 2, 3)) / 2

    results = score(photos / "far", None, [Half(CARDS["toy-light"])])
    full = score(photos / "far", None, ["toy-light"])
    np.testing.assert_allclose(results.array() * 2, full.array(), atol=1e-7)


def test_unknown_device_is_refused(toys, photos):
    with pytest.raises(ConfigError, match="'warp'"):
        score(photos / "far", None, ["toy-light"], settings=Settings(device="warp"))


def test_a_critic_can_see_luma_beside_others_that_see_colour(toys, photos):
    results = score(photos / "far", photos / "gt", ["psnr-y", "toy-light", "psnr"])
    assert [column.label for column in results.critics] == ["psnr-y", "toy-light", "psnr"]
    assert "|y-bt601|" in results.critics[0].signature
    assert "|rgb|" in results.critics[2].signature
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64).view(3, 1, 1) / 255
    for image, value in zip(results.images, results.values[0][0], strict=True):
        x, y = (tensor(photos / where / f"{image.key}.png")[0].double() for where in ("far", "gt"))
        error = ((x - y) * weights).sum(0).square().mean()  # BasicSR's, less the 1e-8 that psnr adds
        assert value == pytest.approx(-10 * error.log10().item(), abs=1e-4)
    everything_on_luma = score(photos / "far", photos / "gt", ["psnr"], settings=Settings(colour="y"))
    assert everything_on_luma.values[0][0] == results.values[0][0]
    assert everything_on_luma.critics[0].signature == results.critics[0].signature
    with pytest.raises(ConfigError, match="toy-light-y is for full-reference critics"):
        score(photos / "far", photos / "gt", ["toy-light-y"])
    with pytest.raises(ConfigError, match="did you mean 'psnr'"):
        score(photos / "far", photos / "gt", ["psnrr-y"])


def test_shares_of_a_plan_merge_into_the_whole(toys, photos):
    plan = make_plan(
        {"far": photos / "far", "near": photos / "near"},
        photos / "gt",
        ["ssim", "toy-light"],
        rules=Pairing(),
        settings=Settings(),
    )
    whole = run_plan(plan)
    shares = [plan.share(rank, 2) for rank in (1, 0)]
    assert [len(share.images) for share in shares] == [1, 2]
    assert plan.share(3, 4) is None
    merged = merge([run_plan(share) for share in shares])
    assert (merged.images, merged.values, merged.critics) == (whole.images, whole.values, whole.critics)
    with pytest.raises(ConfigError, match="there twice"):
        merge([whole, whole])
    with pytest.raises(ConfigError, match="signatures differ"):
        merge([run_plan(shares[0]), score_pairs([("a", torch.rand(3, 12, 12), None)], ["toy-light"])])


def test_what_was_trained_on_is_marked_and_counts_for_no_rank(toys):
    def pairs(value):
        return [("a", torch.full((3, 9, 9), value), torch.zeros(3, 9, 9))]

    parts = [
        score_pairs(pairs(value), ["toy-error", "toy-light"], name=name)
        for name, value in (("old", 0.5), ("new", 0.25))
    ]
    both = join(parts, baseline="old")
    assert [standing.rank for standing in both.summary().standings] == [1.5, 1.5]  # less error, less light
    told = both.with_roles({"toy-light"})
    assert [standing.rank for standing in told.summary().standings] == [2, 1]
    assert told.summary().standings[1].wins == 1
    text = render(told, "md")
    assert "toy-light ↑†" in text
    assert "toy-error ↓ |" in text
    assert "trained on, so no evidence" in text
    assert "1 image and 1 critic," in text
    assert not {"*", "†"} & set(render(both, "md"))


class TestNotFinite:
    def test_a_picture_from_memory_has_no_score(self, toys):
        """Critics are not asked, and what they would say of NaN is no score."""
        good, bad = torch.rand(2, 3, 72, 72)
        bad[0, 1, 2] = math.nan
        for pairs in ([("a", bad, good), ("b", good, good)], [("a", good, bad), ("b", good, good)]):
            results = score_pairs(pairs, ["mdsi", "nlpd", "tv"], settings=Settings(batch=2))
            assert [column[0] for column in results.values[0]] == [None] * 3
            assert None not in [column[1] for column in results.values[0]]
            assert {(flag.kind, flag.image) for flag in results.flags} == {("not-finite", "a")}
            assert results.summary().standings[0].cells[0].count == 1

    @pytest.mark.parametrize("higher", [True, False])
    def test_a_missing_score_loses_to_any(self, higher):
        """By rank and wins; means are of the same images, and a system without scores spoils nobody's."""
        some, full, lost = [1.0, None, 3.0], [9.0, 9.0, 9.0], [None, None, None]
        sign = -1 if higher else 1  # `some` has the better ones where it has any
        values = [[[sign * s if s is not None else None for s in row]] for row in (some, full, lost)]
        first, second, third = summarise(values, [higher], base=1).standings
        assert (first.cells[0].mean, second.cells[0].mean, third.cells[0].mean) == (2 * sign, 9 * sign, None)
        assert [standing.cells[0].count for standing in (first, second, third)] == [2, 2, 0]
        assert (first.cells[0].wins, first.cells[0].losses, first.wins) == (2, 1, 2)
        assert (third.cells[0].wins, third.cells[0].losses, third.cells[0].difference) == (0, 3, None)
        assert [s.rank for s in (first, second, third)] == pytest.approx([(1 + 2.5 + 1) / 3, (2 + 1 + 2) / 3, 8.5 / 3])


class TestLaunched:
    """By `accelerate launch` or torchrun: each process has its share of the images, and the first one prints."""

    def command(self, folder, *more, processes=None):
        words = ["compare", "near=near", "far=far", "--ref", "gt", "-c", "lpips-squeeze", "-c", "ssim", *more]
        words += ["--random-weights", "--format", "csv", "--output", "out.json"]
        env = {**os.environ, "PERCEPTLOSS_OFFLINE": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
        start = [sys.executable]
        if processes is not None:
            env.pop("OMP_NUM_THREADS", None)  # more threads would round otherwise
            start += ["-m", "accelerate.commands.launch", "--num_processes", str(processes)]
            start += ["--multi_gpu"] if processes > 1 else ["--num_cpu_threads_per_process", "2"]
        done = subprocess.run(
            [*start, "-m", "perceptloss", *words], cwd=folder, env=env, text=True, capture_output=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        content = json.loads((folder / "out.json").read_text())
        del content["provenance"]["created"], content["provenance"]["command"], content["provenance"]["platform"]
        return done, content

    @pytest.mark.thorough
    def test_any_number_of_processes_gives_the_same_bytes(self, photos):
        pytest.importorskip("accelerate")
        workers, first = self.command(photos, "--workers", "2")
        cache = photos / "kept"
        for processes in (1, 2, 4):
            done, content = self.command(photos, "--cache", str(cache / str(processes)), processes=processes)
            assert (done.stdout, content) == (workers.stdout, first)
            assert done.stderr.count("scores mean nothing") == 1
            assert self.kept(cache / str(processes)) == (2 * min(3, processes), 12)
        again, content = self.command(photos, "--cache", str(cache / "2"), processes=1)  # knows what both have written
        assert (again.stdout, content, self.kept(cache / "2")) == (workers.stdout, first, (4, 12))

    def kept(self, folder):
        lines = [len(file.read_text().splitlines()) - 1 for file in folder.iterdir()]
        return len(lines), sum(lines)

    def test_the_variables_of_launchers(self):
        assert Launched.here({}) is Launched.here({"WORLD_SIZE": "4", "RANK": "1"}) is None
        assert Launched.here({"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "False"}) == Launched()
        given = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "ACCELERATE_USE_CPU": "true"}
        assert Launched.here(given) == Launched(5, 8, 1, True)
        assert Launched.here(given).device(None) == "cpu" and Launched().device("cuda:3") == "cuda:3"

    def test_shares_are_all(self, toys, photos):
        plan = make_plan({"near": photos / "near"}, photos / "gt", ["toy-error"], rules=Pairing(), settings=Settings())
        assert [Launched(rank, 2).scores(plan) for rank in (0, 1)] == [2, 1]
        with pytest.raises(ConfigError, match="leave out workers"):
            run_plan(plan, workers=2, launched=Launched())

    def test_processes_that_see_different_files_stop(self, toys, photos, monkeypatch):
        plan = make_plan({"near": photos / "near"}, photos / "gt", ["toy-error"], rules=Pairing(), settings=Settings())
        monkeypatch.setattr(Launched, "_told", lambda self, mine: [mine, [*mine[:-1], "of other files"]])
        with pytest.raises(ConfigError, match="different images or critics"):
            run_plan(plan, launched=Launched())
        assert toys.scored == 0

    def test_no_batch_holds_two_images(self, toys, photos, monkeypatch):
        seen, score_ = [], toys.score
        monkeypatch.setattr(toys, "score", lambda self, x, y=None: seen.append(len(x)) or score_(self, x, y))
        systems = {name: photos / name for name in ("near", "far")}
        plan = make_plan(systems, photos / "gt", ["toy-error"], rules=Pairing(), settings=Settings(batch=8))
        alone = run_plan(plan, launched=Launched())
        assert seen == [2, 2, 2] and alone.values == run_plan(plan).values
