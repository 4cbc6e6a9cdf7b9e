"""Teachers of scored sets: seen from farther away, masked by the reference, and out of other packages."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import data

from perceptloss import create_critic
from perceptloss.errors import ConfigError, PerceptlossError
from perceptloss.networks.trunks.critic import TrunkCritic, references_kept
from perceptloss.teach.degradations.operations import gaussian_blur
from perceptloss.teach.run import teachers as source
from perceptloss.teach.run.describe import data_sources
from perceptloss.teach.sets import Plan, TeacherSpec, build
from perceptloss.teach.sets import teachers as said
from perceptloss.teach.sets.judging import Judge, Panel, pink
from perceptloss.teach.sets.packages import PACKAGES
from perceptloss.teach.sets.plan import facts, identity, problems_in
from perceptloss.teach.sets.teachers import FLOOR, SIGMA, critic_in, teacher_spec

FAR = {
    "ssim": TeacherSpec(2.0),
    "far": TeacherSpec(critic="haarpsi", shrink=2),
    "smooth": TeacherSpec(critic="haarpsi", shrink=2, masked=True),
    "edges": TeacherSpec(critic="gmsd", masked=True),
}


@pytest.fixture(scope="module")
def pair():
    y = torch.from_numpy(data.astronaut()[60:124, 180:244].copy()).permute(2, 0, 1)[None].float() / 255
    noise = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return torch.cat([y, (y + torch.linspace(0.01, 0.2, 10)[:, None, None, None] * noise).clamp(0, 1)]), y


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    photo = tmp_path_factory.mktemp("photos") / "astronaut.png"
    Image.fromarray(data.astronaut()).reduce(4).save(photo)
    return Plan((photo,), crop=64, crops_per_photo=1, singles=2, levels_each=2, chains=0, teachers=FAR)


@pytest.mark.parametrize(("name", "shrink"), [("haarpsi", 1), ("haarpsi", 2), ("gmsd", 2), ("vif", 1)])
def test_a_masked_teacher_gives_the_distance_over_the_root_of_the_references_texture(pair, name, shrink):
    x, y = (F.avg_pool2d(image, shrink) for image in pair)
    judge = create_critic(name)
    natural = judge(x, y.expand_as(x))

    def texture(image):
        return float((judge(image, image) - judge(gaussian_blur(image, SIGMA), image)).abs())

    root = (texture(y) + FLOOR * texture(F.avg_pool2d(pink(64), shrink))) ** 0.5
    spec = TeacherSpec(critic=name, shrink=shrink)
    panel = Panel({"raw": spec, "masked": replace(spec, masked=True)}, 64)
    raw, masked = panel.scores(*pair).unbind(1)
    torch.testing.assert_close(raw, natural)
    torch.testing.assert_close(masked, (natural - judge(y, y)).abs() / root, rtol=1e-4, atol=1e-5)
    assert masked.diff().min() > 0 and abs(float(masked[0])) < 1e-5
    assert panel.is_higher_better == {"raw": name != "gmsd", "masked": False}


def test_masking_counts_losses_on_smooth_content_more_and_no_more_than_the_floor_allows():
    panel = Panel({"ssim": TeacherSpec(critic="ssim"), "masked": TeacherSpec(critic="ssim", masked=True)}, 64)
    most = float(panel.floors[panel.judges["masked"]]) ** -0.5
    factors = []
    for y in (torch.full((1, 3, 64, 64), 0.5), gaussian_blur(pink(64), 2.0), pink(64)):
        x = (y + 0.05 * torch.randn(y.shape, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
        raw, masked = panel.scores(x, y)[0].tolist()
        factors.append(masked / (1 - raw))
    assert factors[0] == pytest.approx(most, rel=1e-3)
    assert most > factors[1] > 1.5 * factors[2] and most / factors[2] < 4


def test_judges_and_references_are_not_asked_twice(pair, monkeypatch):
    x, y = pair
    seen = []
    look = TrunkCritic.look
    monkeypatch.setattr(TrunkCritic, "look", lambda self, image: seen.append(len(image)) or look(self, image))
    spec = TeacherSpec(critic="lpips-squeeze")
    panel = Panel({"raw": spec, "masked": replace(spec, masked=True)}, 64)
    seen.clear()
    scores = panel.scores(x, y)
    assert sorted(seen) == [1, 2, 3, 8]  # the reference, it and its blurred self, eleven versions
    expected = create_critic("lpips-squeeze")(x, y.expand_as(x))
    torch.testing.assert_close(scores[:, 0], expected)
    assert panel.judges["raw"].critics[0]._last is None


def test_a_kept_reference_may_be_repeated_anew_or_changed(pair):
    x, y = pair
    critic = create_critic("lpips-squeeze")
    other = y.flip(-1).clone()
    with references_kept([critic]), torch.no_grad():
        for part, reference in ((x[:3], y), (x[:5], y), (x[:2], other), (x[2:4], y)):
            torch.testing.assert_close(
                critic(part, reference.expand_as(part)), critic(part, reference.repeat(len(part), 1, 1, 1))
            )


def test_a_set_by_labels_goes_through_the_consensus_and_names_its_critics(plan, tmp_path):
    made = build(plan, tmp_path / "set", processes=1, progress=False)
    assert made.teachers == tuple(FAR) and made.weights["ssim"] == 2.0
    assert made.is_higher_better == {"ssim": True, "far": True, "smooth": False, "edges": False}
    np.testing.assert_allclose(made.clean_scores[:, 2:], 0, atol=1e-5)
    for label in FAR:
        labels = made.consensus({label: 1.0})
        assert labels[made.level == 0].tolist() == [1.0]
        falling = [labels[made.group == group] for group in (0, 1)]
        assert all(mild >= strong for mild, strong in falling)
    np.testing.assert_array_equal(made.consensus({"far": 1}), made.consensus({"smooth": 1}))  # of one content
    assert [critic_in(label, made.plan["teachers"]) for label in FAR] == ["ssim", "haarpsi", "haarpsi", "gmsd"]
    setting = SimpleNamespace(is_exam=True, seed=0, with_reference=True)
    opened = source.open_source(source.Options(folder=str(tmp_path / "set")), setting)
    assert opened.teachers == ("ssim", "haarpsi", "gmsd")


def test_facts_name_all_that_decides_a_score_and_old_plans_keep_theirs(plan):
    spec = TeacherSpec()
    assert facts(replace(plan, teachers={"gmsd": spec, "ssim": spec}))["teachers"] == {"gmsd": [], "ssim": []}
    ways = [{}, {"critic": "ssim"}, {"shrink": 2}, {"masked": True}, {"weights": "a.pth"}]
    ids = {identity(facts(replace(plan, teachers={"gmsd": TeacherSpec(**way)}))) for way in ways}
    assert len(ids) == len(ways)
    same = [TeacherSpec(3.0), TeacherSpec(critic="gmsd")]
    assert {identity(facts(replace(plan, teachers={"gmsd": one}))) for one in same} <= ids


def test_what_is_wrong_with_a_teacher_is_said(plan, monkeypatch):
    monkeypatch.setattr(said, "version_of", lambda _: None)
    wrong = {
        "a": TeacherSpec(critic="haarpsi", shrink=3),
        "b": TeacherSpec(critic="gmsd", masked="yes"),
        "c": TeacherSpec(critic="lpips-alex", shrink=2),
        "d": TeacherSpec(critic="package:cvdp"),
        "e": TeacherSpec(critic="package:cvvdp", weights="file"),
        "f": TeacherSpec(critic="package:ssimulacra2"),
        "g": TeacherSpec(critic="gmsd", shrink=4, pixels_per_degree=40),
        "h": TeacherSpec(critic="package:cvvdp", pixels_per_degree=0),
        "i": TeacherSpec(critic="gmsd", weights=3),
    }
    text = "\n".join(problems_in(replace(plan, crop=66, teachers=wrong)))
    for part in (
        "teachers.a: shrink: expected one of 1, 2, 4, got 3",
        "teachers.b: masked: expected true or false, got 'yes'",
        "teachers.c: needs sides of at least 35 and a multiple of 1, crop is 66, shrunk to 33",
        "teachers.d: there is no 'package:cvdp'; did you mean 'package:cvvdp'",
        "teachers.e: weights: package:cvvdp brings its own, got 'file'",
        "teachers.f: ssimulacra2 is not installed: pip install 'ssimulacra2>=0.3,<0.4', or perceptloss[teachers]",
        "teachers.g: shrink: crop 66 is not a multiple of 4",
        "teachers.g: pixels_per_degree: only package:cvvdp takes it, got 40",
        "teachers.h: pixels_per_degree: expected a number from 1 to 1000, got 0",
        "teachers.i: weights: expected a file, a name of the weights manifest, or a list, got 3",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (2, TeacherSpec(2.0)),
        ({"weights": ["a", "b"]}, TeacherSpec(weights=("a", "b"))),
        ({"critic": "haarpsi", "weight": 3, "shrink": 2, "masked": True}, TeacherSpec(3.0, None, "haarpsi", 2, True)),
    ],
)
def test_a_recipe_names_a_teacher_by_weight_or_by_all_of_it(given, expected):
    assert teacher_spec(given) == expected
    with pytest.raises(ConfigError, match="mapping of critic, masked, pixels_per_degree, shrink, weight, weights, got"):
        teacher_spec({"shrunk": 2})


def test_packages_are_on_the_card_of_what_they_taught():
    cited = data_sources(SimpleNamespace(sources=()), ("lpips", *PACKAGES))
    assert [(one.name, one.licence) for one in cited[1:]] == [
        ("package:ssimulacra2", "BSD-3-Clause"),
        ("package:cvvdp", "MIT"),
    ]
    assert cited[0].name == "lpips-alex"


def test_a_package_that_does_not_import_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycvvdp", None)
    with pytest.raises(PerceptlossError, match=r"cvvdp .*does not work here.*pip install 'cvvdp>=0.5.7,<0.6'"):
        Judge(TeacherSpec(critic="package:cvvdp"))


@pytest.mark.parametrize("name", PACKAGES)
def test_a_judge_of_a_package_says_what_its_authors_code_says(pair, name):
    pytest.importorskip(name.replace("package:", "").replace("cvvdp", "pycvvdp"))
    x, y = ((image * 255).round() / 255 for image in pair)
    judge = Judge(TeacherSpec(critic=name))
    assert judge.is_higher_better
    with torch.inference_mode():
        scores = judge.score(x[[0, 2, 10]], y)
    assert scores[0] == pytest.approx(100 if "ssimulacra2" in name else 10) and scores[1] > scores[2]
    expected = [_by_the_authors(name, image, y[0]) for image in x[[0, 2, 10]]]
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4, atol=1e-4)


def test_cvvdp_sees_less_from_farther_away(pair):
    pytest.importorskip("pycvvdp")
    near, own, far = (
        Judge(TeacherSpec(critic="package:cvvdp", pixels_per_degree=ppd)).score(pair[0][5:6], pair[1])
        for ppd in (30, None, 150)
    )
    assert near < own < far


def _by_the_authors(name: str, x: torch.Tensor, y: torch.Tensor) -> float:
    pixels = [(image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy() for image in (x, y)]
    if name == "package:cvvdp":
        import pycvvdp

        metric = pycvvdp.cvvdp(display_name="standard_4k", device=torch.device("cpu"))
        return float(metric.predict(*pixels, dim_order="HWC")[0])
    from ssimulacra2 import compute_ssimulacra2

    files = [io.BytesIO(), io.BytesIO()]
    for image, file in zip(pixels, files, strict=True):
        Image.fromarray(image).save(file, "PNG")
    return float(compute_ssimulacra2(files[1], files[0]))
