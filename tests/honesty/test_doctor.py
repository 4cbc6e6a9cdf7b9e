"""The doctor: it finds holes that were put into critics, finds none in a distance, and says so to people and to CI."""

from __future__ import annotations

import json
import math
from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F
from images import photographs
from torch import Tensor
from toys import brightness, dead, difference, nan_gradient, toy

from perceptloss import create_critic
from perceptloss.cli.main import main
from perceptloss.critic import Critic
from perceptloss.errors import ConfigError, InputError, WeightsError
from perceptloss.honesty.doctor import examine
from perceptloss.honesty.examination import Examination
from perceptloss.honesty.findings import findings_of
from perceptloss.honesty.foreign import critic_named
from perceptloss.honesty.ladders import LADDERS, degraded, enlarged, pixelated
from perceptloss.honesty.spectrum import FREQUENCIES, peaks, phases
from perceptloss.honesty.subject import side_for

_FREE = {"bounds": (-math.inf, math.inf)}
_DISTANCE = {**_FREE, "kind": "fr", "better": "lower", "shape": "distance"}


@lru_cache
def photos() -> dict[str, Tensor]:
    return {f"photo{i}": photo[None] for i, photo in enumerate(photographs(224))}


def examined(critic: Critic) -> Examination:
    return examine(critic, photos(), "quick")


def names(e: Examination) -> set[str]:
    return {finding.name for finding in findings_of(e)}


def squared(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().mean((1, 2, 3))


def checkered(x: Tensor) -> Tensor:
    """How much of a checkerboard of one phase an image holds, (N,)."""
    rows, columns = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])
    return (x * (1 - 2 * ((rows + columns) % 2))).mean((1, 2, 3))


def detail(x: Tensor) -> Tensor:
    return (x[..., 1:, :] - x[..., :-1, :]).square().mean((1, 2, 3))


class TestPlantedHoles:
    def test_a_distance_has_none(self):
        e = examined(difference(**_FREE))
        assert findings_of(e) == []
        assert e.attacks["truth"].robustness == 1
        assert min(e.attacks["restored"].psnr.values()) > 0
        assert set(e.ladders.values()) == {1.0}
        assert e.unit > 0.01

    def test_a_reward_for_a_checkerboard(self):
        e = examined(toy("checkered", lambda x, y: squared(x, y) - 0.5 * checkered(x), identity=None, **_DISTANCE))
        found = [finding for finding in findings_of(e) if finding.name == "grid"]
        assert len(found) >= 2  # by its score, and by its gradient
        assert "checkerboard" in found[0].sentence
        assert "(1/2,1/2)" in found[1].sentence
        assert "shift" in found[0].guard
        gains = e.patterns["restored"]["checkerboard"]
        assert gains["0"] > 0.1 > -0.1 > gains["1"]

    def test_a_dead_zone(self):
        e = examined(toy("clipped", lambda x, y: F.relu(0.02 - squared(x, y)), **{**_FREE, "kind": "fr"}))
        assert "dead-zone" in names(e)
        assert e.zones["noise"].zero == 1
        assert e.zones["restored"].zero < 0.25

    def test_half_of_the_image_out_of_sight(self):
        def left(x: Tensor, y: Tensor) -> Tensor:
            return squared(x[..., : x.shape[-1] // 2], y[..., : y.shape[-1] // 2])

        e = examined(toy("left", left, identity=0.0, **_DISTANCE))
        assert names(e) == {"dead-zone"}
        assert all(0.5 <= zone.zero < 0.6 for zone in e.zones.values())

    def test_a_direction_that_is_wrong_for_blur(self):
        e = examined(toy("smooth", lambda x, y: -detail(x), **_FREE))
        assert e.ladders["blur"] < 0.1
        assert e.ladders["noise"] == 1
        (finding,) = (finding for finding in findings_of(e) if finding.name == "reversed")
        assert "blur" in finding.sentence
        assert "noise" not in finding.sentence

    def test_a_love_of_squares(self):
        e = examined(toy("sharp", lambda x, y: detail(x), **_FREE))
        assert {"pixelation", "reversed"} <= names(e)
        assert e.ladders["noise"] == 0
        assert max(e.pixelation.values()) < 0

    def test_a_love_of_grain(self):
        def rough(x: Tensor, y: Tensor) -> Tensor:
            return (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))

        e = examined(toy("rough", rough, **_FREE))
        assert {"grain", "above-truth", "away-from-truth"} <= names(e)
        assert e.grain["restored"]["all"] > 0.05
        assert e.attacks["restored"].psnr["8"] < 0

    def test_a_score_above_that_of_the_truth(self):
        e = examined(brightness(**_FREE))
        gains = e.attacks["truth"].best
        assert "above-truth" in names(e)
        assert gains["8"] > gains["2"] > 0
        assert e.attacks["truth"].robustness < 0.5

    def test_nothing_to_learn_from(self):
        e = examined(toy("constant", lambda x, y: 0.5 + 0 * x.sum((1, 2, 3))))
        assert {"blind", "dead-zone"} <= names(e)
        assert e.attacks["restored"].best == {"2": 0.0, "8": 0.0}

    def test_no_gradient_and_no_number(self):
        assert "dead-zone" in names(examined(dead()))
        assert "not-finite" in names(examined(nan_gradient()))

    def test_loud_flat_patches(self):
        def relative(x: Tensor, y: Tensor) -> Tensor:
            return (squared(x, y) / (y.var((1, 2, 3)) + 1e-4)).sqrt()

        assert "flat" in names(examined(toy("relative", relative, identity=0.0, **_DISTANCE)))


class TestWhatIsExamined:
    def test_both_views_of_stereo_pairs(self):
        e = examined(difference(kind="stereo-fr", **_FREE))
        assert findings_of(e) == []
        assert e.kind == "stereo-fr"

    def test_a_score_that_the_batch_changes_is_asked_for_alone(self):
        def together(x: Tensor, y: Tensor) -> Tensor:
            return squared(x, y) * len(x)

        coupled = examined(toy("together", together, identity=0.0, couples_batch=True, **_DISTANCE))
        assert coupled.unit == pytest.approx(examined(difference(**_FREE)).unit, rel=1e-6)

    def test_what_a_loss_reads_before_a_flat_end(self):
        class Squashed(type(brightness())):
            def linear(self, x: Tensor, y: Tensor | None = None) -> Tensor:
                return -detail(x)

        plain = brightness()
        e = examined(Squashed(plain.card, plain.function))
        assert e.ladders["noise"] == 1

    def test_sides_are_what_the_card_asks_for(self):
        assert side_for(difference().card, 96) == 96
        assert side_for(difference(min_size=161).card, 96) == 168
        assert side_for(difference(multiple_of=20).card, 96) == 120
        with pytest.raises(InputError, match=r"at least 320x320 .* photo0 is 224x224, photo1 is 224x224"):
            examined(difference(min_size=320))

    def test_half_the_size_is_not_asked_where_it_does_not_fit(self):
        assert examined(difference(min_size=64)).scale == {}
        assert set(examined(difference()).scale) == set(LADDERS)


def test_ladders_hurt_more_and_more():
    y = photographs(96)
    for kind, levels in LADDERS.items():
        errors = [float(squared(degraded(kind, y, level), y).mean()) for level in levels]
        assert errors == sorted(errors)
        assert errors[0] > 0
    assert enlarged(y, 4).shape == y.shape
    squares = pixelated(y, 4, smooth=False)
    assert torch.equal(squares[..., ::4, ::4], squares[..., 3::4, 3::4])


def test_peaks_are_where_a_pattern_is():
    noise = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    assert max(peaks(noise).values()) < 3
    columns = torch.arange(96) // 2 % 2 * 2.0 - 1
    found = peaks(noise + columns)
    assert max(found, key=found.__getitem__) == "0,1/4"
    assert found["0,1/4"] > 10
    assert all(db < 3 for name, db in found.items() if name != "0,1/4")
    assert peaks(torch.zeros(1, 3, 64, 64)) == {}
    assert list(found) == list(FREQUENCIES)


def test_phases_are_those_of_a_stride():
    noise = torch.randn(4, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    assert max(phases(noise).values()) < 1
    strided = noise.clone()
    strided[..., 1::4, :] *= 2
    found = phases(strided)
    assert found["4"] == pytest.approx(6, abs=1)
    assert found["2"] == pytest.approx(4, abs=1)  # (1 + 4) / 2
    strided[..., 1::2, 1::2] = 0
    assert phases(strided)["2"] == math.inf
    assert phases(torch.zeros(1, 3, 64, 64)) == {}


_MODULES = """
import torch
from torch import nn
from perceptloss import Card, Critic

CARD = Card(
    name="own", summary="Of a test.", kind="nr", better="higher", bounds=(0, 1), identity=None, shape="hinge",
    licence_code="Apache-2.0", paper="none", source="tests",
)

class Own(Critic):
    def __init__(self):
        super().__init__(CARD)
        self.gain = nn.Parameter(torch.ones(()))

    def score(self, x, y=None):
        return self.gain * x.mean((1, 2, 3))

class Strided(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, stride=2)

    def forward(self, x, y):
        return (self.stem(x) - self.stem(y)).square().mean()

class Alone(nn.Module):
    def forward(self, x):
        return -(x - x.mean()).abs().mean()

class Map(nn.Module):
    def forward(self, x):
        return x

class Views(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(6, 1, 1)

    def forward(self, x):
        return self.mix(x).mean()

def number():
    return 3

def broken():
    raise OSError("no such file: head.pth")

def sized(size):
    return nn.Identity()
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A working directory with modules of a user's own; the name of their file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "own_critics.py").write_text(_MODULES)
    yield "own_critics"
    import sys

    sys.modules.pop("own_critics", None)


class TestOwnCritics:
    def test_a_strided_stem_is_found_out(self, modules):
        critic = critic_named(f"{modules}:Strided", better="lower")
        assert (critic.card.kind, critic.card.shape, critic.is_frozen) == ("fr", "distance", True)
        e = examined(critic)
        assert "grid" in names(e)
        assert e.phases["2"] > 6
        assert examined(difference(**_FREE)).phases["2"] < 1

    def test_kind_follows_from_what_it_takes(self, modules):
        assert critic_named(f"{modules}:Alone", better="higher").card.kind == "nr"
        assert critic_named(f"{modules}:Alone", better="higher", kind="stereo-nr").card.channels == 6

    def test_a_critic_brings_its_card(self, modules, tmp_path):
        critic = critic_named(f"{modules}:Own")
        assert (critic.card.name, critic.card.better, critic.is_frozen) == ("own", "higher", True)
        assert not critic.gain.requires_grad
        assert critic_named(f"{modules}:Own", better="lower").card.better == "lower"
        torch.save({"gain": torch.tensor(0.5)}, tmp_path / "own.pth")
        assert float(critic_named(f"{modules}:Own", "own.pth")(torch.ones(1, 3, 8, 8))) == 0.5
        with pytest.raises(ConfigError, match="has a card"):
            critic_named(f"{modules}:Own", kind="fr")

    def test_weights_of_its_own(self, modules, tmp_path):
        state = {"stem.weight": torch.zeros(8, 3, 3, 3), "stem.bias": torch.zeros(8)}
        torch.save(state, tmp_path / "own.pth")
        critic = critic_named(f"{modules}:Strided", "own.pth", better="lower")
        assert float(critic(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))) == 0
        torch.save({"stem.weight": torch.zeros(1)}, tmp_path / "other.pth")
        with pytest.raises(WeightsError, match=r"other\.pth does not fit"):
            critic_named(f"{modules}:Strided", "other.pth", better="lower")

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("nowhere:Class", "cannot be imported"),
            ("own_critics:Strode", "did you mean 'Strided'"),
            ("own_critics:Strided", "--better"),
            ("own_critics:number", "expected a Critic or a torch module, got int"),
            ("own_critics:sized", "without arguments"),
            ("own_critics:broken", "it cannot be made: OSError: no such file: head.pth"),
        ],
    )
    def test_what_is_wrong_is_said(self, modules, name, message):
        with pytest.raises(ConfigError, match=message):
            critic_named(name)

    def test_a_map_is_no_score(self, modules):
        critic = critic_named(f"{modules}:Map", better="lower")
        with pytest.raises(InputError, match=r"one number for one image, got \(1, 3, 32, 32\)"):
            critic(torch.rand(1, 3, 32, 32))

    def test_a_module_that_fails_is_named(self, modules):
        critic = critic_named(f"{modules}:Views", better="higher")
        with pytest.raises(InputError, match=r"own_critics:Views fails on .* \(1, 3, 32, 32\).*say --kind"):
            critic(torch.rand(1, 3, 32, 32))
        pairs = critic_named(f"{modules}:Views", better="higher", kind="stereo-nr")
        assert pairs(torch.rand(1, 6, 32, 32)).shape == (1,)

    def test_registered_critics_come_by_name(self):
        assert critic_named("ssim").card == create_critic("ssim").card
        with pytest.raises(ConfigError, match="--kind"):
            critic_named("ssim", kind="nr")


class TestCommand:
    def test_a_sheet_that_fits_a_terminal(self, capsys, monkeypatch):
        monkeypatch.setenv("COLUMNS", "80")
        assert main(["doctor", "psnr", "--quick", "--device", "cpu"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("psnr (fr) on astronaut, coffee, 96x96, quick")
        assert max(map(len, lines)) <= 80
        assert any(line.startswith("from x4 enlargements") for line in lines)
        assert any("nothing of: not-finite" in line for line in lines)

    def test_json_for_machines_and_an_exit_code(self, capsys, modules):
        command = ["doctor", f"{modules}:Strided", "--better", "lower", "--quick", "--device", "cpu", "--json"]
        assert main([*command, "--fail-if", "reversed"]) == 0
        facts = json.loads(capsys.readouterr().out)
        assert "grid" in [finding["name"] for finding in facts["findings"]]
        assert facts["attacks"]["truth"]["robustness"] == 1
        assert set(facts["peaks"]) == set(FREQUENCIES)
        assert main([*command, "--fail-if", "grid"]) == 4
        assert "found grid" in capsys.readouterr().err

    def test_photographs_of_ones_own(self, capsys, tmp_path):
        from PIL import Image

        for n, photo in enumerate(photographs(224)):
            pixels = (photo * 255).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(tmp_path / f"own{n}.png")
        assert main(["doctor", "psnr", "--quick", "--images", str(tmp_path), "--json"]) == 0
        out, err = capsys.readouterr()
        assert json.loads(out)["photos"] == ["own0", "own1"]
        assert "the first 2 of 3 photographs" in err
        Image.new("RGB", (50, 40)).save(tmp_path / "own0.png")
        assert main(["doctor", "psnr", "--quick", "--images", str(tmp_path)]) == 2
        assert "own0 is 40x50" in capsys.readouterr().err

    def test_a_table_of_all_that_are_here(self, capsys, monkeypatch):
        from perceptloss.card import shipped_cards

        few = [shipped_cards()[name] for name in ("pieapp", "psnr", "tv")]
        monkeypatch.setattr("perceptloss.cli.doctor.known_cards", lambda: (few, {}))
        assert main(["doctor", "--all", "--quick", "--format", "md"]) == 0
        out, err = capsys.readouterr()
        assert [line.split(" | ")[0] for line in out.splitlines()[2:]] == ["| `psnr`", "| `tv`"]
        assert "1 critic left out" in err
        assert "pieapp" in err

    def test_wrong_flags_are_refused_together(self, capsys):
        assert main(["doctor", "--fail-if", "grids", "--format", "md"]) == 2
        err = capsys.readouterr().err
        assert "did you mean 'grid'" in err
        assert "give the name of a critic, or --all" in err
        assert "--format md is for --all" in err
        assert main(["doctor", "ssin"]) == 2
        assert "did you mean 'ssim'" in capsys.readouterr().err

    def test_missing_photographs_say_what_to_do(self, capsys, monkeypatch):
        monkeypatch.setattr("perceptloss.runs.images.find_spec", lambda name: None)
        assert main(["doctor", "psnr"]) == 2
        assert "give your own with --images DIR" in capsys.readouterr().err
