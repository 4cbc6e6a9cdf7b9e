"""Critics as BasicSR metrics: what they are given, their direction, and every mistake."""

from __future__ import annotations

import bsr  # noqa: F401
import numpy as np
import pytest
import torch
from basicsr.metrics import calculate_metric
from basicsr.models import build_model
from basicsr.utils import tensor2img
from fakes import options, registered
from images import pair

import perceptloss.integrations.basicsr  # noqa: F401
from perceptloss import create_critic, list_critics
from perceptloss.errors import ConfigError, InputError
from perceptloss.integrations import metrics
from perceptloss.integrations.basicsr.metrics import METRIC_REGISTRY, prepare_metrics
from perceptloss.integrations.metrics import calculate_critic

DISTS = {"type": "calculate_critic", "critic": "dists", "weights": None}


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    registered(monkeypatch)


@pytest.fixture
def data():
    x, y = pair(1, 48, 56)
    return {"img": tensor2img(x), "img2": tensor2img(y)}


def tensors(data, border=0):
    out = []
    for image in data.values():
        cut = image[border : image.shape[0] - border, border : image.shape[1] - border]
        out.append(torch.from_numpy(cut[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255)
    return out


def with_metrics(**metrics):
    return options() | {"val": {"metrics": metrics}}


def test_a_metric_is_the_critics_score_of_rgb_in_unit_range(data):
    value = calculate_metric(data, DISTS | {"better": "lower", "crop_border": 4})
    assert isinstance(value, float)
    assert value == pytest.approx(float(create_critic("dists", weights=None)(*tensors(data, 4))), rel=1e-6)
    assert value != pytest.approx(calculate_metric(data, DISTS), rel=1e-3)  # the border counts
    swapped = {name: image[..., ::-1] for name, image in data.items()}
    assert value != pytest.approx(calculate_metric(swapped, DISTS | {"crop_border": 4}), rel=1e-3)  # so do the colours


def test_every_critic_of_single_images_has_a_metric_of_its_own(data):
    names = [card.name for card in list_critics() if card.channels == 3 and not card.name.startswith("fake")]
    assert len(names) > 10
    for name in names:
        assert f"calculate_critic_{name.replace('-', '_')}" in METRIC_REGISTRY
    value = calculate_metric(data, {"type": "calculate_critic_gmsd", "crop_border": 2, "better": "lower"})
    assert value == pytest.approx(float(create_critic("gmsd")(*tensors(data, 2))), rel=1e-6)


def test_a_critic_is_built_once_for_the_same_options(data, monkeypatch):
    built = []
    monkeypatch.setattr(metrics, "create_critic", lambda *a, **k: built.append(a) or create_critic(*a, **k))
    metrics._built.cache_clear()
    for _ in range(3):
        calculate_critic(**data, critic="gmsd")
    calculate_critic(**data, critic="gmsd", crop_border=3)
    assert len(built) == 1
    calculate_critic(**data, critic="lpips-squeeze", weights=None)
    assert len(built) == 2


def test_no_reference_critics_need_no_ground_truth(data):
    value = calculate_critic(data["img"], critic="fake-alone", better="higher")
    assert value == pytest.approx(data["img"].mean() / 255, rel=1e-5)
    assert calculate_critic(**data, critic="fake-alone") == value
    with pytest.raises(InputError, match="no ground truth"):
        calculate_critic(data["img"], critic="gmsd")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"critic": "gmsd", "better": "higher"}, "better: higher is wrong for 'gmsd', whose card says better: lower"),
        ({"critic": "gmsd", "crop_boarder": 4}, "did you mean 'crop_border'"),
        ({"critic": "gmsdd"}, "did you mean 'gmsd'"),
        ({"critic": "gmsd", "crop_border": -1}, "crop_border must be"),
        ({"critic": "fake-stereo"}, "stereo"),
        ({}, "must name a critic"),
    ],
)
def test_wrong_options_are_named_when_called_and_at_start_up(data, wrong, message):
    with pytest.raises(ConfigError, match=message):
        calculate_metric(data, {"type": "calculate_critic", **wrong})
    with pytest.raises(ConfigError, match=r"val\.metrics\.mine: ") as caught:
        build_model(with_metrics(mine={"type": "calculate_critic", **wrong}))
    assert message.split("'")[0] in str(caught.value)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((32, 32), np.uint8), "colour images"),
        (np.zeros((32, 32, 1), np.uint8), "colour images"),
        (np.zeros((32, 32, 3), np.float32), "of uint8"),
        (np.zeros((8, 32, 3), np.uint8), "crop_border 4 leaves nothing"),
    ],
)
def test_images_that_cannot_be_judged(image, message):
    with pytest.raises(InputError, match=message):
        calculate_critic(image, image, 4, critic="gmsd")


def test_images_of_a_wrong_size_name_critic_and_size(data):
    with pytest.raises(InputError, match="'fake-large' needs images of at least 161x161, got x of 48x56"):
        calculate_critic(**data, critic="fake-large")
    with pytest.raises(InputError, match="multiples of 8, got x of 44x52"):
        calculate_critic(**data, critic="fake-even", crop_border=2)
    with pytest.raises(InputError, match="one shape"):
        calculate_critic(data["img"], data["img2"][:40], critic="gmsd")


def test_a_missing_direction_is_completed_and_logged(log):
    metrics = {"d": dict(DISTS), "s": {"type": "calculate_critic_ssim"}, "p": {"type": "calculate_psnr"}}
    model = build_model(with_metrics(**metrics))
    model._initialize_best_metric_results("set")
    best = model.best_metric_results["set"]
    assert {name: record["better"] for name, record in best.items()} == {"d": "lower", "s": "higher", "p": "higher"}
    assert best["d"]["val"] == float("inf")
    assert [line for line in log if "better: lower, from the card of 'dists'" in line]


def test_start_up_lists_all_mistakes_and_a_reference_that_cannot_come():
    opt = with_metrics(
        a={"type": "calculate_critc", "critic": "gmsd"}, b={"type": "calculate_critic_gmsd", "better": "higher"}
    )
    opt["datasets"] = {"val": {"type": "SingleImageDataset"}}
    with pytest.raises(ConfigError) as caught:
        prepare_metrics(opt)
    found = "\n".join(caught.value.problems)
    assert "val.metrics.a: unknown type 'calculate_critc'; did you mean 'calculate_critic'" in found
    assert "val.metrics.b: better: higher is wrong" in found
    assert "val (SingleImageDataset) has none" in found


def test_metrics_are_on_the_models_device():
    opt = with_metrics(d=dict(DISTS))
    prepare_metrics(opt)
    assert opt["val"]["metrics"]["d"]["device"] == "cpu"
