"""The benchmarks count right, and the counts keep what the project promises; no seconds are judged here."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import cases, flops, joint, peers, rivals, steps, targets, timing
from benchmarks.__main__ import main
from benchmarks.cases import FIVE, MODES, THREE, images, ours
from benchmarks.costs import Row, render
from benchmarks.flops import Flops
from benchmarks.lines import lines
from benchmarks.memory import Footprint, LiveStorage, footprint
from benchmarks.precision import cosine
from benchmarks.timing import Timing
from perceptloss import create_critic

CPU = torch.device("cpu")


def trunk_of(name):
    return create_critic(name, weights=None).trunk


class TestMemory:
    def conv(self):
        return nn.Conv2d(3, 5, 3, padding=1).requires_grad_(False)

    def test_relu_of_conv_holds_its_result_and_the_scalar(self):
        conv = self.conv()
        x, y = torch.rand(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)
        feature = 2 * 5 * 8 * 8 * 4
        found = footprint(lambda x, y: conv(x).relu().sum(), x, y)
        assert found.held == feature + 4  # relu keeps its result; frozen weights and x existed before
        # conv result and relu result alive at once; later the result, two gradients of its size, and scalars
        assert 2 * feature <= found.peak <= 3 * feature + 16

    def test_in_place_and_views_cost_nothing(self):
        x = torch.rand(4, 4)
        with LiveStorage() as storages:
            x.view(16).add_(1)
            x[1:].relu_()
            x.t()
        assert storages.peak == storages.live == 0

    def test_a_graph_that_saves_through_hooks_is_seen(self):
        held = []

        def pack(saved):
            held.append(saved * 1)  # a copy that no saved-tensor hook reports
            return len(held) - 1

        def loss(x, y):
            with torch.autograd.graph.saved_tensors_hooks(pack, held.__getitem__):
                return (x * y).square().sum()

        x = torch.rand(100)
        found = footprint(loss, x, torch.rand(100))
        assert found.held >= 2 * x.nbytes

    def test_resting_state_is_clean(self):
        assert footprint(lambda x, y: x.sum(), torch.rand(10), torch.rand(10)).held == 4

    @pytest.mark.parametrize("names", [("lpips-vgg",), FIVE], ids=["one term", "five terms"])
    def test_fused_holds_one_batch(self, names):
        x, y = images((2, 64, 64))
        assert footprint(ours(names, micro_batch=1), x, y).held <= 1.05 * x.nbytes

    def test_promised_peaks(self):
        for check in (*targets.peak_checks((2, 96, 96), CPU), targets.tile_check(CPU)):
            assert check.passed, check


class TestFlops:
    def test_counts_products_by_hand(self):
        conv = nn.Conv2d(3, 5, 3, padding=1).requires_grad_(False)
        forward = 2 * (2 * 8 * 8) * 5 * 27
        found = flops.count(
            lambda x, y: conv(x).relu().sum() + conv(y).sum(), torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
        )
        assert found.convolutions == found.total == 3 * forward
        matrix = torch.rand(7, 4)
        found = flops.count(lambda x, y: (x @ matrix).sum(), torch.rand(5, 7), torch.rand(5, 7))
        assert (found.convolutions, found.total) == (0, 2 * 2 * 5 * 7 * 4)

    def test_formula_knows_vgg16(self):
        # 15.35 G multiply-adds of the convolutions at 224x224 (torchvision's documentation: 15.47 with the classifier)
        assert flops.trunk_forward(trunk_of("lpips-vgg"), torch.Size((1, 3, 224, 224))) == 2 * 15_346_630_656

    def test_formula_agrees_with_torch_on_alexnet(self):
        critic = create_critic("lpips-alex", weights=None)
        x, y = images((2, 64, 64))
        got = flops.count(ours(("lpips-alex",), grad="autograd"), x, y)
        assert got.convolutions == flops.least(critic.trunk, x.shape)

    @pytest.mark.parametrize("names", [("lpips-vgg",), THREE], ids=["one term", "three terms"])
    @pytest.mark.parametrize(
        "mode", ["autograd", "fused", "fused, one at a time", "fused lean, one at a time", "fused bf16"]
    )
    def test_every_mode_runs_one_trunk_once(self, names, mode):
        x, y = images((2, 32, 32))
        assert flops.count(ours(names, **MODES[mode]), x, y).convolutions == flops.least(trunk_of("lpips-vgg"), x.shape)

    def test_checkpoint_adds_at_most_a_forward(self):
        x, y = images((2, 32, 32))
        bound = flops.least(trunk_of("lpips-vgg"), x.shape)
        assert bound < flops.count(ours(("lpips-vgg",), grad="checkpoint"), x, y).convolutions <= bound * 4 // 3

    def test_piq_runs_a_trunk_per_term(self):
        x, y = images((1, 32, 32))
        with peers.offline():
            loss = peers.PEERS["piq LPIPS+Content+Style"](CPU)
        assert flops.count(loss, x, y).convolutions > 2.5 * flops.least(trunk_of("lpips-vgg"), x.shape)


@pytest.mark.parametrize("name", peers.PEERS)
def test_peers_are_built_offline_and_send_gradients(name, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: pytest.fail("a peer downloads"))
    with peers.offline():
        loss = peers.PEERS[name](CPU)
    x, y = images((1, 32, 32))
    x.requires_grad_()
    loss(x, y).backward()
    assert torch.isfinite(x.grad).all()
    assert x.grad.abs().max() > 0


def test_peers_hold_activations_of_both_images_where_fused_holds_none():
    x, y = images((1, 64, 64))
    with peers.offline():
        held = {name: footprint(peers.PEERS[name](CPU), x, y).held for name in ("lpips", "DISTS-pytorch")}
    # 343 and 377 MiB at 4x192x192, 36 times the pixels
    assert held["lpips"] == pytest.approx(342.9 * 2**20 / 36, rel=0.01)
    assert held["DISTS-pytorch"] == pytest.approx(377.1 * 2**20 / 36, rel=0.01)


def test_every_case_has_its_modes_and_peers(monkeypatch):
    monkeypatch.setattr(cases, "ours", lambda terms, device, **options: (terms, options))
    monkeypatch.setattr(cases, "PEERS", dict.fromkeys(peers.PEERS, lambda device: "peer"))
    for case in cases.CASES.values():
        losses = case.losses(CPU)
        assert list(losses)[: len(case.peers)] == list(case.peers)
        assert {label: losses[label] for label in MODES} == {label: (case.terms, MODES[label]) for label in MODES}


def test_interleaved_counts_rounds_and_compares_with_the_first():
    calls = []

    def named(name):
        def loss(x, y):
            calls.append(name)
            return (x * y).sum()

        return loss

    found = timing.interleaved({"a": named("a"), "b": named("b")}, torch.rand(3), torch.rand(3), repeat=2)
    assert calls == ["b", "a", "a", "b", "b", "a"]
    assert found["a"].ratio == found["a"].cpu_ratio == 1
    assert found["b"].seconds > 0
    assert found["b"].device_peak is None


def test_bf16_gradients_turn_most_near_the_reference():
    near, far = (cosine("lpips-vgg", level, (1, 32, 32)) for level in (1, 64))
    assert 0.5 < near < far
    assert far > 0.98


def test_promises_about_seconds_are_read_from_the_table():
    def row(case, label, ratio):
        return Row(case, (4, 192, 192), label, Footprint(0, 0), Flops(0, 1), Timing(1.0, ratio, ratio, None))

    rows = [row("lpips-vgg", "fused", 0.7), row("lpips-vgg", "fused bf16", 0.5)]
    rows += [row("three-terms", "fused", 0.6), row("three-terms", "fused, lpips-vgg alone", 0.5)]
    assert [check.passed for check in targets.time_checks(rows)] == [True, False, True]
    assert list(targets.time_checks([])) == []
    assert str(next(targets.time_checks(rows))).startswith("PASS  seconds of lpips-vgg, fused")

    memory, operations = Footprint(2**20, 2**21), Flops(0, 10**9)
    cpu, gpu = (
        "\n".join(
            render([Row("c", (1, 2, 3), "l", memory, operations, Timing(0.5, 1.0, 1.0, peak))], 8e9, is_cuda=is_cuda)
        )
        for peak, is_cuda in ((None, False), (2**22, True))
    )
    assert "4.00" in cpu  # half a second, in which the machine does 4 G operations by convolutions, for 1 G
    assert "500.00" in gpu
    assert "allocator" in gpu
    assert "allocator" not in cpu
    assert "CPU of first" in cpu


def test_rows_are_shown_as_they_come():
    def measured():
        yield from ("first", "second")
        raise KeyboardInterrupt

    shown = lines(["name", "value"], ((row, "1") for row in measured()), (8,))
    assert next(shown).split() == ["name", "value"]
    assert set(next(shown)) == {"-", " "}
    assert [next(shown), next(shown)] == ["first            1", "second           1"]
    with pytest.raises(KeyboardInterrupt):
        next(shown)


@pytest.mark.thorough
def test_command_writes_rows(tmp_path, capsys):
    file = tmp_path / "numbers.json"
    assert main(["--quick", "--case", "lpips-vgg", "--size", "1x32x32", "--json", str(file)]) == 0
    written = json.loads(file.read_text())
    assert {row["label"] for row in written["rows"]} == {"lpips", "piq LPIPS", *MODES}
    assert written["environment"]["threads"] == torch.get_num_threads()
    assert "lpips-vgg at 1x32x32" in capsys.readouterr().out


def test_a_joint_step_of_single_rungs_holds_less_and_computes_more(tmp_path, capsys):
    file = tmp_path / "numbers.json"
    assert main(["joint", "--quick", "--critic", "patch", "--json", str(file)]) == 0
    rows = {row["way"]: row for row in json.loads(file.read_text())["joint"]}
    assert set(rows) == set(joint.WAYS)
    for more in ("", ", with penalty"):
        plain, single = rows[f"plain{more}"], rows[f"checkpoint{more}"]
        assert single["peak"] < plain["peak"] / 2
        assert plain["operations"] < single["operations"] < 2 * plain["operations"]
    assert rows["plain"]["operations"] < rows["plain, with penalty"]["operations"]
    assert "patch       checkpoint" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--size", "4x4"], ["--repeat", "0"], ["--case", "none"]])
def test_command_refuses(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert "error" in capsys.readouterr().err


def test_libraries_are_compared(capsys):
    assert main(["libraries", "--quick", "--size", "1x64x64"]) == 0
    assert {"JPEG", "hue", "mirror"} <= {line.split("  ")[0] for line in capsys.readouterr().out.splitlines()}


def test_rivals_stand_in_one_table_with_what_we_lose(capsys, monkeypatch):
    monkeypatch.setattr(rivals, "LIBRARIES", ("piq", "no_such_library"))
    assert main(["peers", "--quick", "--size", "1x64x64", "--critic", "gmsd", "--critic", "vif"]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.startswith(("gmsd ", "vif "))]
    assert {("gmsd", "perceptloss"), ("gmsd", "piq"), ("vif", "piq")} <= {tuple(row[:2]) for row in rows}
    assert "where we lose:" in out
    monkeypatch.setattr(rivals, "RIVALS", {"gmsd": {"piq": lambda device: 1 / 0}})
    assert main(["peers", "--quick", "--size", "1x64x64"]) == 0
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_losses_to_rivals_are_named_with_what_is_lost():
    mine = rivals.RivalRow("gmsd", "perceptloss", 1.0, 1.0, 2 << 20, 4 << 20)
    better = rivals.RivalRow("gmsd", "fast", 0.5, 0.5, 2 << 20, 1 << 20)
    worse = rivals.RivalRow("gmsd", "slow", 2.0, 2.0, 3 << 20, 5 << 20)
    failed = rivals.RivalRow("gmsd", "broken", problem="ValueError")
    assert rivals.lost([mine, better, worse, failed]) == [
        "gmsd: fast is 2.00 times as fast, peaks at 1.0 MiB instead of 4.0"
    ]


class TestSteps:
    @pytest.fixture(autouse=True)
    def _traced_only(self, monkeypatch):
        monkeypatch.setattr(steps, "BACKEND", "eager")
        monkeypatch.setattr(rivals, "LIBRARIES", ("lpips",))

    @pytest.mark.thorough
    def test_ours_in_every_precision_beside_others(self):
        rows = list(steps.measure(["lpips-alex", "ssim-full"], [(1, 64, 64)], CPU, 1, published=False))
        found = {(row.critic, row.by, row.way): row for row in rows}
        assert list(found) == [
            ("lpips-alex", "perceptloss", "fp32"),
            ("lpips-alex", "perceptloss", "bf16"),
            ("lpips-alex", "perceptloss", "compiled"),
            ("lpips-alex", "lpips", "as it is"),
            ("ssim-full", "perceptloss", "fp32"),
            ("ssim-full", "perceptloss", "compiled"),
        ]
        assert not any(row.problem for row in rows)
        first = found["lpips-alex", "perceptloss", "fp32"]
        assert first.ratio == 1
        assert first.held == pytest.approx(3 * 64 * 64 * 4, abs=100), "the gradient, and the loss itself"
        assert found["lpips-alex", "lpips", "as it is"].held > 3 * first.held

    def test_a_compiled_step_has_the_same_slope(self):
        x, y = images((1, 64, 64))
        slopes = []
        for way, loss in steps._ways("ssim-full", CPU).items():
            leaf = x.clone().requires_grad_()
            slopes.append(torch.autograd.grad(loss(leaf, y), leaf)[0].flatten())
            assert way in ("fp32", "compiled")
        assert torch.cosine_similarity(*slopes, dim=0) > 0.9999

    def test_published_figures_stand_beside_ours_of_their_size(self, monkeypatch):
        measured = []
        monkeypatch.setattr(steps, "_case", lambda name, size, *_: measured.append((name, size)) or iter(()))
        rows = list(steps.measure(steps.CRITICS, steps.SIZES, CPU, 1))
        assert set(steps.PUBLISHED) <= set(measured)
        assert len(measured) == len(set(measured)) == 7
        lines_of = {tuple(line.split()[:6]) for line in steps.render(rows)}
        assert ("lpips-alex", "1x1080x1920", "frame_analytics", "RTX", "3090", "17.90") in lines_of
        assert ("ms-ssim", "8x1080x1920", "frame_analytics", "RTX", "3090", "12.70") in lines_of

    def test_rounding_of_factors_is_as_before_afterwards(self):
        before = torch.backends.cudnn.allow_tf32
        with steps.tf32(not before):
            assert torch.backends.cudnn.allow_tf32 != before
        assert torch.backends.cudnn.allow_tf32 == before

    def test_the_command_prints_and_saves_them(self, capsys, tmp_path):
        command = ["steps", "--quick", "--size", "1x48x48", "--critic", "ssim-full", "--json", str(tmp_path / "a.json")]
        assert main(command) == 0
        assert "ssim-full   1x48x48" in capsys.readouterr().out
        assert [row["way"] for row in json.loads((tmp_path / "a.json").read_text())["steps"]] == ["fp32", "compiled"]


def test_the_script_for_a_gpu_ends_in_eight_minutes():
    text = (Path(__file__).parent.parent / "benchmarks" / "device.sh").read_text()
    limits = re.findall(r"^ *step (\d+) [a-z-]+ python -m (?:pytest|benchmarks (\w+))", text, re.MULTILINE)
    assert [what for _, what in limits] == ["", "costs", "precision", "steps", "critics", "quality"]
    assert sum(int(seconds) for seconds, _ in limits) <= 8 * 60


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("nothing", "unknown critic 'nothing'"),
        ("gmsd", "'gmsd' is a formula"),
        ("niqe", "nothing of 'niqe' can learn"),
        ("mini-stereo", "needs x of shape (N, 6, H, W)"),
    ],
)
def test_a_critic_that_cannot_be_measured_is_named(name: str, part: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["joint", "--critic", name, "--quick"])
    assert part in str(ended.value)
