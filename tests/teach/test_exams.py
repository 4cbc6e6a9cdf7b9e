"""Exams: questions about order, pairs within a scene, preferences, attacks, and the entries that make them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from skimage import data, io
from torch import Tensor

from perceptloss import create_critic, get_card
from perceptloss.errors import ConfigError, PerceptlossError
from perceptloss.honesty.attacks import ATTACKS, fgsm, mi_fgsm, pgd
from perceptloss.networks.restorers import Compact
from perceptloss.teach.degradations.enlarge import shrunk
from perceptloss.teach.exams.attacks import attack_problems, under_attack
from perceptloss.teach.exams.evaluate import default_best, exam_problems, examine, figures
from perceptloss.teach.exams.exam import Exam
from perceptloss.teach.exams.prefer import accuracy, calibration_error, pairs_to_compare, preferences
from perceptloss.teach.run import enlargers, restoration
from perceptloss.teach.run.sources import Setting, parse_entries

HERE = Accelerator(cpu=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in ("astronaut", "coffee"):
        io.imsave(folder / f"{name}.png", getattr(data, name)()[100:250, 150:310], check_contrast=False)
    return folder


def setting(name: str = "ssim", *, is_exam: bool = True) -> Setting:
    card = get_card(name)
    return Setting(card, 0, is_exam, card.needs_reference, lambda act: act())


def made(**changed: Any) -> Exam:
    """Four photographs of one cut each, six versions in two places; a better version has a darker picture."""
    content = np.repeat(np.arange(4), 6)
    target = np.tile([0.9, 0.5, 0.1, 0.8, 0.4, 0.2], 4) + 0.001 * content

    def images(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy((255 * (1 - target[rows])).astype(np.uint8))[:, None, None, None].expand(-1, 3, 8, 8)
        return x, torch.zeros_like(x)

    base: dict[str, Any] = {
        "name": "made",
        "target": target,
        "content": content,
        "reference": content,
        "group": np.full(24, -1),
        "level": np.full(24, np.nan),
        "family": np.full(24, ""),
        "unseen": frozenset(),
        "images": images,
        "batch": 5,
        "about": "grey squares.",
    }
    return Exam(**{**base, **changed})


# --- order --------------------------------------------------------------------------------------


def test_questions_are_asked_of_their_pairs_alone_with_ties_as_halves() -> None:
    pairs = np.array([[0, 1], [2, 3], [6, 7], [12, 13]])
    exam = made(target=np.full(24, np.nan), asked={"first": pairs, "absent": pairs[:1]})
    quality = np.zeros(24)
    quality[[0, 3, 6]] = 1  # right, wrong, right, tied
    rows = np.arange(24)
    found = figures(exam, rows, quality, 100)["all"]
    assert set(found) == {"first", "absent"} and exam.measures == ("first", "absent")
    assert (found["first"]["value"], found["first"]["count"]) == (0.625, 4)
    assert found["first"]["low"] < 0.625 < found["first"]["high"]
    of_some = figures(exam, rows[6:], quality[6:], 0)["all"]
    assert (of_some["first"]["value"], of_some["first"]["count"]) == (0.75, 2) and "absent" not in of_some
    assert default_best([exam]) == "made/all/first" and default_best([made()]) == "made/all/srcc"
    assert exam_problems("made/all/absent", [exam], has_card=True) == []
    assert "there is no 'srcc'" in exam_problems("made/all/srcc", [exam], has_card=True)[0]


def test_pairs_within_a_place_leave_out_those_across() -> None:
    place = np.arange(24) // 3
    exam = made(within=place)
    quality = exam.target + 10 * (place % 2)  # perfect within a place, and wrong across
    found = figures(exam, np.arange(24), quality, 50)["all"]
    assert found["within"]["value"] == 1 and found["pairwise"]["value"] < 1
    assert figures(exam, np.arange(24), -quality, 0)["all"]["within"]["value"] == 0
    assert {"low", "high"} <= set(found["within"])


def test_enlargers_are_asked_for_the_order_that_people_see(photos: Path) -> None:
    options = enlargers.Options(kind="enlargers", photos=(str(photos),), crop=96, factors=(2, 4, 8))
    exam = enlargers.open_source(options, setting()).exams[0]
    names = enlargers.ENLARGERS
    assert len(exam.target) == 2 * 3 * len(names) and not exam.has_targets
    for better, worse in exam.asked["nearest below bilinear"]:
        assert exam.reference[better] == exam.reference[worse] and exam.level[better] == exam.level[worse]
    assert len(exam.asked["nearest below bilinear"]) == 6
    assert set(exam.asked) == set(enlargers.KNOWN)
    rows = np.array([names.index("nearest"), names.index("bilinear")]) + 2 * len(names)  # factor 8
    x, y = exam.images(rows)
    assert y is not None and x.dtype == torch.uint8 and x.shape == y.shape == (2, 3, 96, 96)
    blocks = x[0].reshape(3, 12, 8, 12, 8)
    assert torch.equal(blocks, blocks[:, :, :1, :, :1].expand_as(blocks)) and not torch.equal(x[0], x[1])
    found = examine(HERE, create_critic("psnr"), [exam], limit=0, seed=0, rounds=50)["enlargers"]
    assert found["all"]["levels"]["value"] > 0.99 and found["all"]["nearest below bilinear"]["value"] == 1
    assert {"family:factor 2", "family:factor 8"} <= set(found)
    assert "levels" not in found["family:factor 2"] and found["family:factor 8"]["nearest below bicubic"]["count"] == 2


def test_restored_versions_are_compared_within_a_cut_and_factor(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, network = tmp_path / "kept" / "scores.npz", tmp_path / "sr.pth"
    torch.save(Compact(4, 1, upscale=3).state_dict(), network)
    options = restoration.Options(
        kind="restoration",
        photos=(str(photos),),
        crop=96,
        factors=(2, 3),
        enlargers=("nearest", "bicubic"),
        teachers={"gmsd": 1, "far": {"critic": "ms-gmsd", "weight": 2, "shrink": 2, "masked": True}},
        networks={"sr": str(network)},
        scores=str(kept),
    )
    exam = restoration.open_source(options, setting()).exams[0]
    assert np.unique(exam.within, return_counts=True)[1].tolist() == [6, 9] * 2  # the network enlarges by 3 alone
    before = kept.read_bytes()
    again = restoration.open_source(options, setting()).exams[0]
    assert np.array_equal(again.target, exam.target) and kept.read_bytes() == before
    with monkeypatch.context() as changed:
        changed.setattr(restoration, "shrunk", lambda x, factor: shrunk(x, factor, "area"))
        assert not np.array_equal(restoration.open_source(options, setting()).exams[0].target, exam.target)
    other = restoration.open_source(replace(options, damages=("none", "jpeg")), setting()).exams[0]
    assert len(other.target) == 2 * (4 + 6) and kept.read_bytes() != before
    found = examine(HERE, create_critic("gmsd"), [exam], limit=0, seed=0, rounds=20)["restoration"]["all"]
    assert found["within"]["value"] > 0.8 and found["srcc"]["value"] > 0.8
    with pytest.raises(ConfigError, match=r"networks\.sr: enlarges by \(3,\), none of which is in factors"):
        restoration.open_source(replace(options, factors=(2, 4)), setting())
    blind = restoration.open_source(options, setting("niqe")).exams[0]
    assert blind.images(np.arange(2))[1] is None


@pytest.mark.parametrize(
    ("kind", "changed", "part"),
    [
        ("enlargers", {}, "move the entry from data to val.sets"),
        ("restoration", {"teachers": {"gmsd": 1}}, "move the entry from data to val.sets"),
        ("enlargers", {"factors": [5]}, "5 does not divide crop, 96"),
        ("enlargers", {"enlargers": ["bicubik"]}, "did you mean 'bicubic'"),
        ("enlargers", {"photos": []}, "photos: give at least one folder"),
        ("restoration", {}, "give at least one full-reference critic"),
        ("restoration", {"teachers": {"niqe": 1}}, "a teacher compares an image with its reference"),
        ("restoration", {"teachers": {"gmsd": 1}, "networks": {"sr": "none.pth"}}, "networks.sr"),
        ("restoration", {"teachers": {"gmsd": 1}, "networks": {"sr": "none.bin"}}, "networks.sr: cannot read none.bin"),
        ("restoration", {"teachers": {"gmsd": 1}, "networks": {"sr": 4}}, "networks.sr: expected a file, got 4"),
        ("restoration", {"teachers": {"gmsd": 1}, "damages": []}, "damages: expected at least one"),
        ("restoration", {"teachers": {"gmsd": 1}, "scores": "/dev/null/a.npz"}, "scores: /dev/null/a.npz cannot be"),
        ("restoration", {"teachers": {"gmsd": 1}, "scores": __file__}, "holds no scores of an exam"),
        ("restoration", {"teachers": {"gmsd": {"weight": "1"}}}, "teachers.gmsd: weight: expected a number above 0"),
        ("enlargers", {"enlargers": ["nearest", "nearest"]}, "enlargers: each once, got nearest, nearest"),
        ("enlargers", {"factors": [2, 3, 2]}, "factors: each once, got 2, 3, 2"),
    ],
)
def test_wrong_entries_are_explained(photos: Path, kind: str, changed: dict[str, Any], part: str) -> None:
    given = {"kind": kind, "photos": [str(photos)], "crop": 96, "factors": [2], **changed}
    module: Any = {"enlargers": enlargers, "restoration": restoration}[kind]
    with pytest.raises(ConfigError, match=re.escape(part)):
        module.open_source(parse_entries([given], "val.sets")[0], setting(is_exam="move" not in part))


# --- preferences --------------------------------------------------------------------------------


class Prefers:
    """A critic that compares mean brightness, a darker picture being better, as sure as `slope` says."""

    card = SimpleNamespace(name="prefers", needs_reference=True)

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def prefer(self, a: Tensor, b: Tensor, y: Tensor | None) -> Tensor:
        assert y is not None and a.shape == y.shape
        return torch.sigmoid(self.slope * (b.mean((1, 2, 3)) - a.mean((1, 2, 3))))


def test_preference_is_right_or_wrong_and_calibrated_or_not() -> None:
    exam, rows = made(), np.arange(24)
    assert len(pairs_to_compare(exam, rows)) == 4 * 15
    assert len(pairs_to_compare(made(within=np.arange(24) // 3), rows)) == 4 * 6
    first = pairs_to_compare(exam, rows, 7)
    assert len(first) == 7 and (exam.target[first[:, 0]] > exam.target[first[:, 1]]).all()
    sure = preferences(HERE, Prefers(1000), exam, rows, 50)
    assert sure["prefer"]["value"] == 1 and sure["prefer_ece"]["value"] < 1e-6 and sure["prefer"]["count"] == 60
    wrong = preferences(HERE, Prefers(-1000), exam, rows, 0)
    assert wrong["prefer"]["value"] == 0 and wrong["prefer_ece"]["value"] > 0.999
    timid = preferences(HERE, Prefers(0.01), exam, rows, 0)
    assert timid["prefer"]["value"] == 1 and timid["prefer_ece"]["value"] == pytest.approx(0.5, abs=0.01)
    asked = made(target=np.full(24, np.nan), asked={"order": np.array([[2, 0]])})
    assert preferences(HERE, Prefers(1000), asked, rows, 0)["prefer"]["value"] == 0
    assert preferences(HERE, create_critic("ssim"), exam, rows, 0) == {}


def test_calibration_counts_how_far_confidence_is_from_being_right() -> None:
    p = np.array([0.85] * 20 + [0.25] * 20)
    outcome = np.array([1] * 15 + [0] * 5 + [0] * 15 + [1] * 5)
    assert accuracy(p, outcome) == 0.75
    assert calibration_error(p, outcome) == pytest.approx(0.05)  # 0.10 on one half, 0 on the other
    assert accuracy(np.full(3, 0.5), np.ones(3)) == 0.5 and calibration_error(np.full(3, 0.5), np.ones(3)) == 0


def test_what_is_no_probability_is_refused() -> None:
    critic = Prefers(1)
    critic.prefer = lambda a, b, y: a.mean((1, 2, 3)) + 1.5  # type: ignore[method-assign]
    with pytest.raises(PerceptlossError, match=r"probabilities in \[0, 1\]"):
        preferences(HERE, critic, made(), np.arange(24), 0)


# --- attacks ------------------------------------------------------------------------------------

WEIGHTS = torch.randn(3, 6, 6, generator=torch.Generator().manual_seed(0))


def linear(x: Tensor, y: Tensor | None) -> Tensor:
    return (x * WEIGHTS).sum((1, 2, 3))


def valley(x: Tensor, y: Tensor | None) -> Tensor:
    assert y is not None
    return -(x - y).square().sum((1, 2, 3))


@pytest.mark.parametrize("name", ["FGSM", "PGD-10", "MI-FGSM"])
def test_attacks_reach_the_corner_of_a_linear_function(name: str) -> None:
    x = torch.full((2, 3, 6, 6), 0.5)
    x[:, :, 0] = 1.0  # must not leave [0, 1]
    direction = torch.tensor([1.0, -1.0])
    out = ATTACKS[name](linear, x, None, direction, 4 / 255)
    wanted = (x + 4 / 255 * direction[:, None, None, None] * WEIGHTS.sign()).clamp(0, 1)
    torch.testing.assert_close(out, wanted)
    assert not out.requires_grad


def test_steps_follow_a_gradient_that_turns_and_stay_near() -> None:
    x, y = torch.full((1, 3, 6, 6), 0.5), torch.full((1, 3, 6, 6), 0.51)
    up, eps = torch.ones(1), 4 / 255
    overshot = fgsm(valley, x, y, up, eps)
    torch.testing.assert_close(overshot, x + eps)
    for attack in (pgd, mi_fgsm):
        assert float(valley(attack(valley, x, y, up, eps), y)) > float(valley(overshot, y))
        away = attack(valley, x, y, -up, eps)
        torch.testing.assert_close(away, x - eps)
    starts = [pgd(valley, y, y, -up, eps, 10, torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(starts[0], starts[1]) and not torch.equal(starts[0], starts[2])
    assert (starts[0] - y).abs().max() <= eps + 1e-6 and not torch.equal(starts[0], y)  # the gradient at y itself is 0


def test_attacks_spoil_the_order_of_an_exam_more_the_stronger_they_are() -> None:
    target = np.linspace(0.4, 0.5, 24)

    def images(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        x = torch.from_numpy((255 * (1 - target[rows])).astype(np.uint8))[:, None, None, None].expand(-1, 3, 32, 32)
        return x, torch.zeros_like(x)

    exam = made(target=target, images=images)
    found = under_attack(HERE, create_critic("psnr"), exam, limit=20, seed=0, rounds=20)
    for by_strength in found.values():
        assert list(by_strength) == ["0", "1", "2", "4", "8"] and by_strength["0"]["count"] == 20
        values = [figure["value"] for figure in by_strength.values()]
        assert values[0] > 0.99 and values == sorted(values, reverse=True) and values[-1] < 0.9


def test_wrong_attacks_are_explained() -> None:
    blind = made(name="blind", target=np.full(24, np.nan))
    assert attack_problems({}, [blind]) == attack_problems({"exam": "made"}, [made(), blind]) == []
    for given, part in (
        ({"exam": "blind"}, "expected an exam with targets (made)"),
        ({"exam": "mode"}, "did you mean 'made'"),
        ({"exam": "made", "limit": -1}, "val.attacks.limit"),
        ({"exam": "made", "steps": 3}, "unknown key 'steps'"),
    ):
        assert part in exam_problems("", [made(), blind], has_card=True, attacks=given)[0]
