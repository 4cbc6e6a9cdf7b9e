"""Degradations: the contract that every registered kind keeps, and the errors."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from images import photographs

from perceptloss.errors import ConfigError, InputError
from perceptloss.teach.degradations import (
    Degradation,
    Step,
    UnknownDegradation,
    apply_steps,
    core,
    degrade,
    get_degradation,
    list_degradations,
    register_degradation,
)

NAMES = list_degradations()
every = pytest.mark.parametrize("name", NAMES)


def damage(x, y):
    """Mean squared error of each image, the one measure by which levels are compared here."""
    return (x - y).square().mean((1, 2, 3))


@every
def test_level_zero_is_the_identity_and_a_seed_fixes_the_rest(name):
    x = photographs(48)
    out = degrade(x, name, 0, seed=1)
    assert torch.equal(out, x)
    assert out.data_ptr() != x.data_ptr()
    assert torch.equal(degrade(x, name, 2.5, seed=3), degrade(x, name, 2.5, seed=3))


@every
def test_damage_rises_with_the_level_and_the_input_stays(name):
    x = photographs(96).clone()
    ladder = [x, *(degrade(x, name, level, seed=7) for level in range(1, 6))]
    assert torch.equal(x, photographs(96))
    for out in ladder:
        assert out.shape == x.shape and out.dtype == x.dtype
        assert out.amin() >= 0 and out.amax() <= 1
    errors = torch.stack([damage(out, x) for out in ladder])
    assert (errors.diff(dim=0) > 0).all(), f"{name}: {errors.T.tolist()}"


@every
def test_flat_small_and_odd_images(name):
    flat = torch.tensor([0.0, 0.5, 1.0])[:, None, None, None].expand(3, 3, 32, 32)
    odd = torch.rand(2, 3, 33, 47, generator=torch.Generator().manual_seed(0))
    for x, level in ((flat, 5), (odd, 0.2), (odd, 5)):
        out = degrade(x, name, level, seed=0)
        assert out.shape == x.shape
        assert out.amin() >= 0 and out.amax() <= 1  # false for NaN too


@every
def test_an_image_is_damaged_alike_alone_and_anywhere_in_a_batch(name):
    x = photographs(48)
    together = degrade(x, name, 3, seed=5)
    for order in ((0,), (2, 0), (1, 2, 0)):
        assert torch.equal(degrade(x[list(order)], name, 3, seed=5)[-1], together[order[-1]])
    assert degrade(x[:0], name, 3, seed=5).shape == (0, *x.shape[1:])


@pytest.mark.parametrize("name", ["white-noise", "motion-blur", "colour-cast", "transmission-error", "mixed-resize"])
def test_seeds_draw_for_themselves(name):
    x = photographs(48)
    assert not torch.equal(degrade(x, name, 4, seed=2), degrade(x, name, 4, seed=3))


def test_levels_between_use_the_same_draws_and_the_table():
    kind = get_degradation("white-noise")
    assert kind.value(0) == kind.identity
    assert kind.value(5) == kind.values[-1]
    assert kind.value(2.5) == pytest.approx((kind.values[1] + kind.values[2]) / 2)
    assert get_degradation("jpeg").value(0.5) == pytest.approx((100 + get_degradation("jpeg").values[0]) / 2)
    x = torch.full((1, 3, 64, 64), 0.5)
    weak, strong = (degrade(x, "white-noise", level, seed=1) - 0.5 for level in (1, 2))
    torch.testing.assert_close(strong, weak * kind.value(2) / kind.value(1), rtol=1e-3, atol=1e-6)


def test_chains_apply_in_order():
    x = photographs(48)
    steps = [Step("gaussian-blur", 2, 0), Step("white-noise", 1.5, 9)]
    expected = degrade(degrade(x, "gaussian-blur", 2, seed=0), "white-noise", 1.5, seed=9)
    assert torch.equal(apply_steps(x, steps), expected)
    assert not torch.equal(apply_steps(x, steps[::-1]), expected)


def test_unknown_names_are_told_with_a_hint():
    with pytest.raises(UnknownDegradation, match=r"gausian-blur.*did you mean 'gaussian-blur'"):
        degrade(photographs(48), "gausian-blur", 1, seed=0)
    with pytest.raises(UnknownDegradation, match=r"did you mean 'noise'.*compression"):
        list_degradations("noises")


@pytest.mark.parametrize("level", [-0.1, 5.01, math.nan, "3", None, True])
def test_bad_levels_are_refused(level):
    with pytest.raises(InputError, match="level: expected a number from 0"):
        degrade(photographs(48), "jpeg", level, seed=0)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 3, 48, 48), np.float32), "got ndarray"),
        (torch.zeros(3, 48, 48), r"got \(3, 48, 48\)"),
        (torch.zeros(1, 1, 48, 48), r"got \(1, 1, 48, 48\)"),
        (torch.zeros(1, 3, 31, 48), r"sides of at least 32; got \(1, 3, 31, 48\)"),
        (torch.zeros(1, 3, 48, 48, dtype=torch.uint8), "of torch.uint8"),
        (torch.full((1, 3, 48, 48), 1.5), "values from 1.5 to 1.5"),
        (torch.full((1, 3, 48, 48), math.nan), "values from nan"),
    ],
)
def test_bad_images_are_refused(x, message):
    with pytest.raises(InputError, match=message):
        degrade(x, "jpeg", 1, seed=0)


@pytest.mark.parametrize("seed", [1.0, None, True])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(InputError, match="seed: expected an int"):
        degrade(photographs(48), "jpeg", 1, seed=seed)


def test_registering(monkeypatch):
    monkeypatch.setattr(core, "_TABLE", dict(core._TABLE))
    own = Degradation("my-dimming", "mine", "share", (0.1, 0.2, 0.3, 0.4, 0.5), lambda x, v, g: (1 - v) * x)
    register_degradation(own)
    assert list_degradations("mine") == ("my-dimming",)
    with pytest.raises(ConfigError, match="registered already"):
        register_degradation(own)
    register_degradation(replace(own, function=lambda x, v, g: x / 0), replace=True)
    with pytest.raises(InputError, match="not finite"):
        degrade(photographs(48), "my-dimming", 1, seed=0)
    with pytest.raises(ConfigError, match="3 problems"):
        replace(own, name="My dimming", values=(1.0,), channels=4)


def test_every_kind_says_what_it_is():
    for name in NAMES:
        kind = get_degradation(name)
        assert kind.parameter and kind.source and kind.family
