"""Options of critics that are of another type are refused in a sentence, before anything is built."""

from __future__ import annotations

import inspect
from functools import partial

import pytest

from perceptloss import CriticLoss, create_critic, list_critics
from perceptloss.errors import ConfigError
from perceptloss.registry import find_entry, option_problems


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("dists", {"normalise": "false"}, "options.normalise must be true or false, got 'false'"),
        ("ms-ssim-luma", {"padded": 1}, "options.padded must be true or false, got 1"),
        ("ms-swd", {"num_scale": True}, "options.num_scale must be a whole number, got True"),
        ("fdl", {"stride": 1.0}, "options.stride must be a whole number of at least 1, got 1.0"),
        ("ffl", {"alpha": float("nan")}, "options.alpha must be a number above 0, got nan"),
        ("contextual", {"layers": 3}, "options.layers must be a mapping, got 3"),
        ("perceptual", {"layers": {"conv1_2": "much"}}, "options.layers must be a mapping, got {'conv1_2': 'much'}"),
        ("fdl-dino", {"scales": None}, "options.scales must be a list, got None"),
        ("fdl-dino", {"depths": "01"}, "options.depths must be numbers from 0, rising, got '01'"),
        ("dino", {"model": None}, "options.model must be a text, got None"),
        ("lab-chroma", {"side": 0}, "options.side must be a whole number of at least 1, got 0"),
    ],
)
def test_other_types_are_refused(name, options, sentence):
    with pytest.raises(ConfigError) as caught:
        create_critic(name, weights=None, options=options)
    assert sentence in str(caught.value)


def test_a_loss_says_all_of_it_at_once():
    options = {"hue_weight": "1", "downscale_factor": 2.5, "hue": 1}
    with pytest.raises(ConfigError, match=r"(?s)3 problems.*no option 'hue'.*hue_weight.*downscale_factor"):
        CriticLoss({"hsluv": {"weight": 1.0, "options": options}})


def test_whole_numbers_are_numbers_and_tuples_are_lists():
    assert create_critic("ffl", options={"alpha": 1}).signature == create_critic("ffl").signature
    assert create_critic("swt", options={"weights": (1, 0, 0, 0)}).weights == (1, 0, 0, 0)
    assert create_critic("fdl", weights=None, options={"scales": None, "num_proj": 2}).scales["relu1_2"] == 1


@pytest.mark.parametrize("name", [card.name for card in list_critics()])
def test_what_a_class_takes_by_itself_fits(name):
    entry = find_entry(name)
    fixed = entry.build.keywords if isinstance(entry.build, partial) else {}
    parameters = list(inspect.signature(entry.build).parameters.values())[1:]
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty and p.name not in fixed}
    assert option_problems(entry, defaults) == []
