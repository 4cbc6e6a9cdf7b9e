"""The one schema of a loss: what it accepts, and that it names everything wrong at once."""

from __future__ import annotations

import math
import pickle
from dataclasses import fields
from types import UnionType
from typing import Union, get_args, get_origin, get_type_hints

import pytest
import toys

from perceptloss import CriticLoss, create_critic
from perceptloss.errors import ConfigError
from perceptloss.loss.joint.options import Joint, JointOptions
from perceptloss.loss.parsing import parse_terms
from perceptloss.loss.terms import TermOptions, TermSpec
from perceptloss.registry import Default

pytestmark = pytest.mark.smoke


def problems(critics, **options) -> str:
    with pytest.raises(ConfigError) as error:
        CriticLoss(critics, **options)
    return "\n".join(error.value.problems)


def test_three_ways_to_write_the_same():
    full = [{"critic": "ssim", "weight": 0.5}, {"critic": "gmsd", "weight": 2, "start": 10}]
    short = {"ssim": 0.5, "gmsd": {"weight": 2, "start": 10}}
    for critics in (full, short, {"ssim": {"weight": 0.5}, "gmsd": full[1]}):
        assert parse_terms(critics) == parse_terms(full)
    first, second = parse_terms(full)
    assert (first.label, first.weight, first.shape) == ("ssim", 0.5, first.card.shape)
    assert (first.start, first.ramp, first.crop) == (0, 0, None)
    assert (second.label, second.weight, second.start) == ("gmsd", 2.0, 10)


def test_a_mapping_may_name_its_terms_freely():
    near = {"critic": "ssim", "weight": 1.0, "crop": 32}
    specs = parse_terms({"near": near, "far": {"critic": "ssim", "weight": 0.5}})
    assert [(s.label, s.card.name) for s in specs] == [("near", "ssim"), ("far", "ssim")]
    mine = toys.brightness()
    assert parse_terms([{"critic": mine, "weight": 1.0}])[0].critic is mine


def test_everything_wrong_is_said_at_once():
    said = problems(
        [
            {"critic": "ssin", "weight": 1.0},
            {"critic": "ssim", "wieght": 1.0},
            {"critic": "gmsd", "weight": -0.1, "shape": "hindge"},
            {"critic": "ssim", "weight": 1.0, "shape": "distance"},
            {"critic": "vgg-content", "weight": 1.0, "shape": "deficit"},
            {"critic": "ssim", "weight": 1.0, "tolerance": 0.1},
            {"critic": "ssim", "weight": 1.0, "precision": "bf16"},
            {"critic": "lpips-vgg", "weight": 1.0, "precision": "int8"},
            {"critic": "ms-ssim", "weight": 1.0, "crop": 64},
            {"critic": "ssim", "weight": 1.0, "start": 1.5, "ramp": -1},
            {"critic": toys.brightness(), "weight": 1.0, "weights": "a.pth"},
            {"weight": 1.0},
            "ssim",
        ],
        grad="fast",
        micro_batch=0,
        input_range=(0, 255),
    )
    for expected in (
        "critics[0]: unknown critic 'ssin'; did you mean 'ssim'",
        "critics[1]: unknown key 'wieght'; did you mean 'weight'",
        "critics[1]: 'weight' is missing",
        "critics[2]: 'weight' must be a positive number, or 0 to only watch, got -0.1 (direction is on the card",
        "critics[2]: unknown shape 'hindge'; did you mean 'hinge'?",
        "critics[3]: shape 'distance' minimises the score, but higher is better for 'ssim'; use 'deficit'",
        "critics[4]: shape 'deficit' needs finite bounds",
        "critics[5]: 'tolerance' goes with shape 'hinge'",
        "critics[6]: critic 'ssim' runs in fp32 only",
        "critics[7]: unknown precision 'int8'",
        "critics[8]: crop 64 does not suit 'ms-ssim', which needs at least 161",
        "critics[9]: 'start' must be a whole number of at least 0, got 1.5",
        "critics[9]: 'ramp' must be a whole number of at least 0, got -1",
        "critics[10]: 'weights' goes with a critic's name",
        "critics[11]: 'critic' must be a name or a Critic, got None",
        "critics[12]: expected a mapping",
        "grad must be one of autograd, checkpoint, fused, got 'fast'",
        "micro_batch must be a whole number of at least 1",
        "input_range must be (0, 1) or (-1, 1), got (0, 255)",
    ):
        assert expected in said


def test_labels_are_unique():
    twice = [{"critic": "ssim", "weight": 1.0}, {"critic": "ssim", "weight": 1.0, "crop": 32}]
    assert "2 terms are called 'ssim'; give each its own 'name'" in problems(twice)
    twice[1]["name"] = "close-up"
    assert [spec.label for spec in parse_terms(twice)] == ["ssim", "close-up"]


@pytest.mark.parametrize("weight", [-1, math.nan, math.inf, "1.0", None, True])
def test_weights_are_positive_numbers(weight):
    assert f"'weight' must be a positive number, or 0 to only watch, got {weight!r}" in problems({"ssim": weight})


@pytest.mark.parametrize(
    ("critics", "expected"),
    [("ssim", "got str"), (None, "got NoneType"), (3, "got int")],
)
def test_no_terms(critics, expected):
    assert expected in problems(critics)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"overshoot": "ignore"}, "overshoot must be one of pass, clamp, raise, got 'ignore'"),
        ({"on_nonfinite": "zero"}, "on_nonfinite must be one of skip, raise, got 'zero'"),
        ({"share_every": -1}, "share_every must be a whole number of at least 0, got -1"),
        ({"seed": 0.5}, "seed must be a whole number, got 0.5"),
        ({"lean": True, "grad": "checkpoint"}, "lean goes with"),
        ({"lean": 1}, "lean must be true or false, got 1"),
        ({"micro_batch": True}, "micro_batch must be"),
        ({"input_range": "01"}, "input_range must be"),
    ],
)
def test_options(options, expected):
    assert expected in problems({"ssim": 1.0}, **options)


def test_the_error_travels_between_processes():
    with pytest.raises(ConfigError) as error:
        parse_terms({"ssim": -1, "gmsd": "a"}, where="train.critics")
    twin = pickle.loads(pickle.dumps(error.value))
    assert str(twin) == str(error.value)
    assert "2 problems in train.critics" in str(twin)


def test_one_critic_cannot_run_in_two_precisions():
    """A critic object has one precision; two terms that ask for different ones are contradictory."""
    shared = create_critic("lpips-squeeze", weights=None)
    terms = [{"critic": shared, "weight": 1.0}, {"critic": shared, "weight": 1.0, "name": "low", "precision": "bf16"}]
    assert "precision" in problems(terms)


def members(kind) -> set:
    """The types of a union, or the one type."""
    return set(get_args(kind)) if get_origin(kind) in (Union, UnionType) else {kind}


class TestSchema:
    """What an editor completes and mypy checks, `TermOptions`, is what the validator reads and `TermSpec` holds."""

    RIGHT = {  # noqa: RUF012
        "critic": "lpips-squeeze",
        "weight": 0.5,
        "name": "near",
        "shape": "hinge",
        "tolerance": 0.1,
        "start": 10,
        "ramp": 5,
        "crop": 64,
        "precision": "bf16",
        "weights": None,
        "better": "lower",
        "monitor": True,
        "grey": "replicate",
        "options": {},
    }
    LEARNS = {"critic": "mini-nr", "share": 0.2, "joint": {"lr": 1e-3, "damage": ["blur"]}}  # noqa: RUF012

    def test_every_key_is_read(self):
        assert {*self.RIGHT, *self.LEARNS} == set(get_type_hints(TermOptions))
        spec, learns = parse_terms([self.RIGHT, self.LEARNS])
        given = {"label" if key == "name" else key: value for key, value in self.RIGHT.items()}
        rest = {"card": spec.card, "share": None, "joint": None}
        assert {f.name: getattr(spec, f.name) for f in fields(spec)} == {**given, **rest}
        assert (learns.share, learns.joint) == (0.2, Joint(lr=1e-3, damage=("blur",)))

    def test_every_option_of_a_joint_critic_is_read(self):
        assert set(get_type_hints(JointOptions)) == {f.name for f in fields(Joint)}
        refused = problems([{**self.LEARNS, "joint": dict.fromkeys(get_type_hints(JointOptions), object())}])
        assert all(f"joint.{key} must be" in refused for key in get_type_hints(JointOptions))

    def test_types_are_those_of_the_validated_term(self):
        written, held = get_type_hints(TermOptions), get_type_hints(TermSpec)
        assert (written.pop("joint"), held.pop("joint")) == (bool | JointOptions, Joint | None)
        for key, kind in written.items():
            field = held["label" if key == "name" else key]
            assert members(kind) <= members(field), key
            assert members(field) - members(kind) <= {type(None), Default}, key

    @pytest.mark.parametrize("key", [key for key in RIGHT if key != "weights"])
    def test_another_type_is_refused_by_its_key(self, key):
        """Weights alone are free in type here; loading them says what is wrong with them."""
        first, *rest = problems([{**self.RIGHT, key: [object()]}]).splitlines()
        assert key in first
        assert all("hinge" in line for line in rest), "a wrong shape contradicts the tolerance, too"

    @pytest.mark.parametrize("key", ["shape", "precision", "better", "grey"])
    def test_every_word_of_a_choice_is_known(self, key):
        """A word may not go with the critic, but none is taken for a misspelling."""
        words = get_args(get_type_hints(TermOptions)[key])
        terms = [{"critic": "lpips-squeeze", "weight": 1.0, "name": word, key: word} for word in words]
        said = problems([*terms, {"critic": "ssim", "weight": -1}])
        assert "must be one of" not in said
        assert "unknown" not in said


def test_critics_without_reference_want_guards(monkeypatch, caplog):
    monkeypatch.setattr("perceptloss.loss.guards._told", set())
    guarded = {"mini-nr": {"share": 0.1}, "mini-fr": {"share": 0.5}, "tv": 0.1}
    CriticLoss(guarded)
    CriticLoss([{"critic": "mini-nr", "weight": 0, "shape": "sigmoid"}])
    assert not caplog.records
    for _ in range(2):
        CriticLoss({"mini-nr": {"share": 0.6, "shape": "sigmoid"}})
    shape, share = (record.getMessage() for record in caplog.records)
    assert "'mini-nr' judges without a reference, and shape 'sigmoid' pays beyond the ground truth" in shape
    assert "has 0.6 of the gradient: at most 0.3" in share
