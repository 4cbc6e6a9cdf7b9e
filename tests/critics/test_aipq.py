"""The refitted LPIPS and DISTS: with the right weights they are LPIPS and DISTS, whose parity is proved."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from images import pair
from parity.parity import distort, fill_state, image, load_case
from rounding import assert_same
from torch import Tensor

from perceptloss import create_critic
from perceptloss.critic import Critic
from perceptloss.errors import WeightsError
from perceptloss.networks.trunks import IMAGENET
from perceptloss.weights.convert import load_states

NAMES = ("aipq-dists", "aipq-lpips", "aipq-lpips-l2pool")
STARTS = (0, 5, 10, 17, 24)  # first convolution of each slice, at torchvision's positions
POOLS = (4, 9, 16, 23)


@lru_cache(maxsize=2)
def case_of(system: str) -> tuple[dict, dict[str, Tensor]]:
    case = load_case(Path(__file__).parents[1] / "parity" / system)
    state = fill_state(case["layout"], seed=case["seed"])
    return case, {key: torch.from_numpy(np.array(value)) for key, value in state.items()}


def checkpoint(name: str, seed: int = 0) -> dict[str, Tensor]:
    """A state dict of the authors' class, by its names: sliced trunk, pooling filters, heads stored twice."""
    own = create_critic(name, weights=None).state_dict()
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, value in own.items():
        position = int(key.split(".")[2]) if key.startswith("trunk.") else -1
        stage = sum(position >= start for start in STARTS)
        value = value + 0.1 * torch.randn(value.shape, generator=generator) / value[0].numel() ** 0.5
        value = value if position >= 0 else value.abs()
        if position >= 0:
            state[f"net.slice{stage}.{position}.{key.split('.')[3]}"] = value
        elif key.startswith("heads."):
            n = key.split(".")[1]
            state[f"lin{n}.model.1.weight"] = state[f"lins.{n}.model.1.weight"] = value.view(1, -1, 1, 1)
        else:
            state[key] = value.view(1, -1, 1, 1)
    if name != "aipq-lpips":
        row = torch.tensor([1.0, 2.0, 1.0])
        for stage, (position, channels) in enumerate(zip(POOLS, (64, 128, 256, 512), strict=True), 2):
            state[f"net.slice{stage}.{position}.filter"] = (row[:, None] * row / 16).repeat(channels, 1, 1, 1)
    if name == "aipq-dists":
        state["mean"], state["std"] = (torch.tensor(v).view(1, 3, 1, 1) for v in IMAGENET)
    return state


def pairs_of(case: dict, name: str) -> tuple[Tensor, Tensor]:
    (items,) = [entry["items"] for entry in case["inputs"] if entry["name"] == name]
    y = [image(*(item["image"][key] for key in ("seed", "height", "width"))) for item in items]
    x = [distort(p, **item["distort"]) if item["distort"] else p for p, item in zip(y, items, strict=True)]
    return tuple(torch.from_numpy(np.stack(side)).double() for side in (x, y))


class TestReduction:
    def test_to_dists(self):
        """Fed the weights of the DISTS case under these names, the refitted DISTS gives the numbers of that case."""
        case, state = case_of("dists")
        renamed = {key.replace("stage", "net.slice"): value for key, value in state.items()}
        assert renamed.keys() != state.keys()
        ours, theirs = create_critic("aipq-dists", renamed).double(), create_critic("dists", state).double()
        for row in case["expected"]:
            x, y = pairs_of(case, row["input"])
            x.requires_grad_()
            score = ours(x, y)
            assert_same(score, theirs(x, y))
            expected = torch.tensor(row["score"], dtype=torch.float64)
            torch.testing.assert_close(score.detach(), expected, rtol=case["rtol"], atol=max(case["atol"], 1e-9))
            (gradient,) = torch.autograd.grad(score.sum(), x)
            assert gradient.norm().item() == pytest.approx(row["gradient"]["norm"], rel=1e-4, abs=1e-6)

    def test_to_lpips(self):
        """LPIPS normalises by ImageNet constants, this by a half: images mapped from one to the other score alike."""
        case, state = case_of("lpips-vgg")
        bare = {key: value for key, value in state.items() if not key.startswith("scaling_layer")}
        ours = create_critic("aipq-lpips", bare).double()
        mean, std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in IMAGENET)
        for row in case["expected"]:
            x, y = pairs_of(case, row["input"])
            x.requires_grad_()
            score = ours.score(*(0.5 + 0.5 * (side - mean) / std for side in (x, y)))
            expected = torch.tensor(row["score"], dtype=torch.float64)
            torch.testing.assert_close(score.detach(), expected, rtol=1e-5, atol=1e-8)
            (gradient,) = torch.autograd.grad(score.sum(), x)
            assert gradient.norm().item() == pytest.approx(row["gradient"]["norm"], rel=1e-4, abs=1e-7)

    @pytest.mark.parametrize("name", NAMES[1:])
    @torch.no_grad()
    def test_lpips_by_the_authors_formula(self, name):
        state = {key: value.double() for key, value in checkpoint(name).items()}
        ours = create_critic(name, state).double()
        x, y = pair(2, 40, 52, dtype=torch.float64)
        taps = [list(sliced(2 * side - 1, state)) for side in (x, y)]
        expected = torch.zeros(2, dtype=torch.float64)
        for n, (fx, fy) in enumerate(zip(*taps, strict=True)):
            ux, uy = (f / (f.square().sum(1, keepdim=True).sqrt() + 1e-10) for f in (fx, fy))
            expected += F.conv2d((uy - ux) ** 2, state[f"lin{n}.model.1.weight"]).mean((1, 2, 3))
        torch.testing.assert_close(ours(x, y), expected, rtol=1e-6, atol=1e-12)


def sliced(h: Tensor, state: dict[str, Tensor]):
    """Outputs of the five slices of the authors' VGG16, layer by layer."""
    for stage, start in enumerate(STARTS, 1):
        if stage > 1:
            kernel = state.get(f"net.slice{stage}.{start - 1}.filter")
            if kernel is None:
                h = F.max_pool2d(h, 2)
            else:
                h = (F.conv2d(h**2, kernel, stride=2, padding=1, groups=h.shape[1]) + 1e-12).sqrt()
        for position in range(start, start + 2 * (2 if stage < 3 else 3), 2):
            weight, bias = (state[f"net.slice{stage}.{position}.{leaf}"] for leaf in ("weight", "bias"))
            h = F.conv2d(h, weight, bias, padding=1).relu()
        yield h


class TestCheckpoints:
    @pytest.mark.parametrize("name", NAMES)
    def test_a_file_of_the_authors_training_script_loads(self, name, tmp_path):
        state = checkpoint(name)
        file = tmp_path / "checkpoint.pth.tar"
        content = {"epoch": 10, "state_dict": state, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4}]}}
        torch.save(content, file)
        loaded = create_critic(name, file)
        assert loaded.weights_id == create_critic(name, state).weights_id
        assert torch.equal(loaded.trunk.features[28].bias, state["net.slice5.28.bias"])
        other = create_critic(name, checkpoint(name, seed=1))
        x, y = pair(1, 48)
        assert not torch.allclose(loaded(x, y), other(x, y), rtol=1e-3, atol=0)

    @pytest.mark.parametrize("name", NAMES)
    def test_an_incomplete_or_foreign_file_is_refused(self, name):
        state = checkpoint(name)
        state.pop("net.slice5.28.bias")
        with pytest.raises(WeightsError, match=r"trunk\.features\.28\.bias: in no file"):
            load_states(create_critic(name, weights=None), [state])
        with pytest.raises(WeightsError, match=r"features\.0\.weight: unknown key"):
            create_critic(name, {"features.0.weight": torch.zeros(64, 3, 3, 3)})

    def test_twins_of_a_head_must_agree(self):
        state = checkpoint("aipq-lpips")
        state["lins.2.model.1.weight"] = state["lins.2.model.1.weight"] + 1
        with pytest.raises(WeightsError, match=r"lins\.2.*contradicts"):
            create_critic("aipq-lpips", state)

    def test_pooling_is_part_of_the_system(self):
        pooled, plain = checkpoint("aipq-lpips-l2pool"), checkpoint("aipq-lpips")
        with pytest.raises(WeightsError, match=r"net\.slice2\.4\.filter: unknown key"):
            create_critic("aipq-lpips", pooled)
        x, y = pair(1, 48)
        scores = [create_critic(name, plain)(x, y) for name in NAMES[1:]]
        assert not torch.allclose(*scores, rtol=1e-2, atol=0)
        wrong = {**pooled, "net.slice3.9.filter": torch.full((128, 1, 3, 3), 1 / 9)}
        with pytest.raises(WeightsError, match=r"net\.slice3\.9\.filter: expected the binomial pooling filter"):
            create_critic("aipq-lpips-l2pool", wrong)

    def test_another_normalisation_is_refused(self):
        state = {**checkpoint("aipq-dists"), "mean": torch.full((1, 3, 1, 1), 0.5)}
        with pytest.raises(WeightsError, match=r"mean: expected the ImageNet mean"):
            create_critic("aipq-dists", state)


@pytest.mark.parametrize("name", NAMES)
def test_is_zero_at_the_reference_and_symmetric(name):
    critic: Critic = create_critic(name, checkpoint(name)).double()
    x, y = pair(2, 48, dtype=torch.float64)
    torch.testing.assert_close(critic(y, y), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-9)
    torch.testing.assert_close(critic(x, y), critic(y, x))
