"""The enhancement recipe: what its parts give, and its runs on made and on published pictures."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import enhance
import pytest
import recipe_helpers
import torch
import yaml
from _lib.damage import DAMAGES
from _lib.gate import Bank
from _lib.gt_mean import GTMean
from _lib.guide import gate_problems
from _lib.scenes import ScenePatches, classes_of, strip_of_scene, whole_scene
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file
from test_sr_run import ABORT_AT_EXIT, assert_same_state, finish, records, wait_for_step

from perceptloss import create_critic
from perceptloss.compare import load_results
from perceptloss.compare.pixels import turned
from perceptloss.errors import ConfigError
from perceptloss.runs.scenes import Scene, find_scenes

TINY = {
    "threads": 1,
    "data": {"patch": 32, "batch": 2},
    "model": {"options": {"width": 4, "grid_width": 4}, "weights": None},
    "loss": {"critics": {"gmsd": 0.5}, "shift": 0, "budget": {}, "gate": "uciqe", "gate_every": 2},
    "train": {"steps": 4, "warmup": 2, "lr": 0.001, "ema": 0.5},
    "val": {"every": 0, "judges": ["haarpsi", "uiqm"], "guests": [], "best": "uiqm"},
    "log": {"every": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """UIEB with challenging-60, SUIM, and photographs, all of it small."""
    root = tmp_path_factory.mktemp("scenes")
    for i in range(4):
        for name, seed in (("raw-890", 20 + i), ("reference-890", i)):
            recipe_helpers.photograph(root / "uieb" / name / f"{i}.png", seed, 48, 56)
    for name in ("uieb/challenging-60", "suim/images"):
        for i in range(2):
            recipe_helpers.photograph(root / name / f"c{i}.png", 40 + i, 48, 56)
    for i in range(2):
        mask = Image.new("RGB", (56, 48))
        mask.paste((255, 255, 0), (0, 0, 40, 36))
        (root / "suim" / "masks").mkdir(exist_ok=True)
        mask.save(root / "suim" / "masks" / f"c{i}.bmp")
    for i in range(5):
        recipe_helpers.photograph(root / "clear" / f"{i}.png", i, 48 + i, 56)
        (root / "of-clear").mkdir(exist_ok=True)
        Image.new("RGB", (56, 48 + i), (255, 255, 0)).save(root / "of-clear" / f"{i}.png")
    return root


@pytest.fixture
def run_here(tmp_path: Path, in_process: None) -> Callable[..., Path]:
    """A run in this process, in a folder of its own below the test's."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))

    def run(name: str, *options: str) -> Path:
        enhance.main(["--config", str(tmp_path / "tiny.yaml"), "--output", str(tmp_path / name), *options])
        return tmp_path / name

    return run


def scenes_of(folder: Path) -> list[Scene]:
    return find_scenes([str(folder)], [], [], "train", "data.train")


@pytest.mark.parametrize("domain", ["underwater", "night"])
def test_made_damage_is_a_function_of_the_seed_and_what_its_name_says(domain: str, folder: Path) -> None:
    clear = torch.stack([whole_scene(scenes_of(folder / "clear")[0], domain)[1]])
    made = [DAMAGES[domain](clear, seed) for seed in range(6)]
    assert torch.equal(made[1], DAMAGES[domain](clear, 1))
    assert not torch.equal(made[1], made[2])
    for image in made:
        assert torch.allclose(image * 255, (image * 255).round(), atol=1e-3)
        change = image.mean((0, 2, 3)) - clear.mean((0, 2, 3))
        if domain == "night":
            assert image.mean() < 0.6 * clear.mean()
        else:
            assert change[0] < change[1:].max()  # water takes red first


def test_patches_are_parts_of_their_pictures_and_repeat(folder: Path) -> None:
    scenes = scenes_of(folder / "uieb")
    patches = ScenePatches(scenes, 32, "underwater", seed=3)
    raw, reference, where, classes = patches[1, 0]
    assert all(torch.equal(a, b) for a, b in zip(patches[1, 0], (raw, reference, where, classes), strict=True))
    index, top, left, turn, has_reference = where.tolist()
    whole = whole_scene(scenes[index], "underwater")
    for patch, image in zip((raw, reference), whole, strict=True):
        assert torch.equal(patch, turned(image[:, top : top + 32, left : left + 32], turn))
    assert has_reference == 1 and (classes == -1).all()
    lonely = patches[0, len(scenes) - 1]
    assert torch.equal(lonely[0], lonely[1]) and lonely[2][4] == 0


def test_patches_of_made_water_leave_the_strip_alone(tmp_path: Path) -> None:
    recipe_helpers.photograph(tmp_path / "a.png", 0, 100, 60)
    (scene,) = scenes_of(tmp_path)
    strip = strip_of_scene(scene, "night", 32)
    assert [part.shape for part in strip] == [(3, 32, 60)] * 2
    patches = ScenePatches([scene], 32, "night", spares_strips=True)
    assert max(int(patches[epoch, 0][2][1]) for epoch in range(40)) == 100 - 32 - 32


def test_colours_of_masks_are_numbers_of_classes(folder: Path) -> None:
    scenes = scenes_of(folder / "suim")
    raw, reference = whole_scene(scenes[0], "underwater")
    assert raw.shape == (4, 48, 56) and reference.numel() == 0
    assert raw[3, 0, 0] == 6 and raw[3, 47, 55] == 0  # fish, water
    codes = torch.arange(8)
    colours = torch.stack([codes >> 2 & 1, codes >> 1 & 1, codes & 1], 1)[None] * 255
    assert classes_of(colours.byte().numpy()).flatten().tolist() == codes.tolist()


def test_gt_mean_forgives_exposure_alone_and_says_so() -> None:
    y = torch.rand(2, 3, 48, 48) * 0.8
    plain, matched = create_critic("psnr"), GTMean(create_critic("psnr"))
    assert matched(0.5 * y, y).min() > 70 > plain(0.5 * y, y).max()
    tinted = y * torch.tensor([1.2, 1.0, 1.0])[:, None, None]
    assert matched(tinted, y).max() < 40
    assert matched.signature == plain.signature + "|gt-mean"
    assert torch.isfinite(matched(torch.zeros_like(y), y)).all()


def test_the_bank_takes_what_the_critic_prefers_to_both_and_is_kept(in_process: None) -> None:
    light = {"student": 0.0, "teacher": 0.5}
    preferred = {0.0: 1.0, 0.5: 2.0}
    network = torch.nn.Linear(1, 1)
    t = SimpleNamespace(accelerator=Accelerator(cpu=True), network=network, step=0)

    class Average:
        @contextmanager
        def swapped_in(self) -> Iterator[None]:
            network.who = "teacher"
            yield
            network.who = "student"

    class Judge(torch.nn.Module):
        card = create_critic("uiqm").card

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert not x.requires_grad
            return torch.tensor([preferred[round(float(x.mean()), 1)]])

    def restored(net: torch.nn.Module, raw: torch.Tensor) -> torch.Tensor:
        return raw + light[getattr(net, "who", "student")]

    def look(step: int) -> dict[int, float]:
        t.step = step
        bank.look(t)
        return dict(bank.scores)

    t.ema = Average()
    bank = Bank([7], lambda number: torch.zeros(3, 40, 48), restored, 2, Judge())
    places, references = torch.tensor([[7, 3, 5, 0, 0], [0, 0, 0, 0, 1]]), torch.rand(2, 3, 32, 32)
    output = torch.rand(2, 3, 32, 32, requires_grad=True)
    before = bank.targets(places, references, output)
    assert torch.equal(before[0], output[0]) and torch.equal(before[1], references[1]) and not before.requires_grad
    assert look(3) == {}  # not its turn
    assert look(2) == {7: 2.0}
    after = bank.targets(places, references, output)
    assert torch.allclose(after[0], torch.full_like(after[0], 128 / 255)) and torch.equal(after[1], references[1])
    preferred[0.5] = 1.5  # above the student, below what is stored
    assert look(4) == {7: 2.0}
    preferred.update({0.5: 3.0, 0.0: 4.0})  # above what is stored, below the student
    assert look(6) == {7: 2.0}
    again = Bank([7], lambda number: torch.zeros(3, 40, 48), restored, 2, Judge())
    again.load_state_dict(bank.state_dict())
    assert torch.equal(again.targets(places, references, output), after)


def test_a_run_on_made_darkness_compares_with_input_and_l1(run_here: Callable[..., Path], folder: Path) -> None:
    options = ["--domain", "night", "--data.train", str(folder / "clear"), "--data.val", str(folder / "clear")]
    run = run_here("run", *options, "--val.gt_mean", "true", "--val.best", "haarpsi")
    results = load_results(run / "results.json")
    assert (results.systems, results.baseline) == (("input", "l1", "critics"), "l1")
    signatures = {column.label: column.signature for column in results.critics}
    assert all(signatures[name].endswith("|gt-mean") or "|gt-mean|" in signatures[name] for name in ("psnr", "haarpsi"))
    assert "gt-mean" not in signatures["uiqm"] + signatures["gmsd"]
    assert [image.key for image in results.images] == ["4"]  # the last tenth of one folder for both
    assert Image.open(run / "images" / "input" / "4.png").size == (56, 52)
    assert Image.open(run / "picture.png").width > 4 * 96


def test_pictures_without_reference_are_learned_from_and_judged_alone(
    run_here: Callable[..., Path], folder: Path
) -> None:
    options = ["--data.train", str(folder / "uieb"), "--data.val_raw", str(folder / "suim" / "images")]
    run = run_here("run", *options)
    results = load_results(run / "results.json")
    assert [column.label for column in results.critics] == ["uiqm"]
    assert "no alarms: they compare with references" in (run / "results.md").read_text()
    bank = torch.load(run / "checkpoints" / "last" / "custom_checkpoint_0.pkl", weights_only=True)
    assert set(bank["scores"]) <= {4, 5}
    assert (run / "picture.png").exists()
    with pytest.raises(ConfigError, match=r"val\.best: 'haarpsi' needs references, .* without: uiqm"):
        run_here("other", *options, "--val.best", "haarpsi")
    with pytest.raises(ConfigError, match=r"val\.reaction: 'stop' waits for alarms"):
        run_here("other", *options, "--val.reaction", "stop")
    with pytest.raises(ConfigError, match=r"loss\.gate: judge 'uiqm' is trained on"):
        run_here("gate", *options, "--loss.gate", "uiqm")
    raw, start = str(folder / "uieb" / "challenging-60"), str(run / "models" / "net_g.safetensors")
    budget = ["--data.train_raw", raw, "--loss.budget", "{psnr: -1}", "--model.weights", start]
    with pytest.raises(ConfigError, match=r"loss\.budget is measured on images whose ground truth is known"):
        run_here("raw", *budget, "--data.val_raw", str(folder / "clear"))


def test_semantic_maps_guide_network_and_critics(run_here: Callable[..., Path], folder: Path) -> None:
    options = ["--data.train", str(folder / "clear"), "--data.train_masks", str(folder / "of-clear")]
    options += [
        "--data.val",
        str(folder / "suim"),
        "--model.arch",
        "SGUIENet",
        "--model.options",
        "{width: 8, groups: 1, blocks: 1}",
    ]
    without = run_here("without", *options)
    regions = run_here("regions", *options, "--loss.regions", "{gmsd: 1.0}")

    def rest(run: Path) -> list[float]:
        return [r["loss"] - r["pixel"] - r["terms"]["gmsd"]["weighted"] for r in records(run)]

    assert max(map(abs, rest(without))) < 1e-6
    assert max(rest(regions)) > 1e-4
    assert records(without / "l1") == records(regions / "l1")  # plain L1 is without regions


def test_regions_that_could_never_be_seen_are_refused(run_here: Callable[..., Path], folder: Path) -> None:
    data = ["--data.train", str(folder / "clear"), "--data.val", str(folder / "uieb")]
    regions = [*data, "--loss.regions", "{gmsd: 1.0}"]
    with pytest.raises(ConfigError, match=r"loss\.regions needs masks of pictures to train on"):
        run_here("masks", *regions)
    with pytest.raises(ConfigError, match=r"loss\.regions goes with loss\.critics"):
        run_here("plain", *regions, "--loss.critics", "{}")
    with pytest.raises(ConfigError, match=r"'ms-ssim' sees boxes of 161 pixels or more of data\.patch 32"):
        run_here("small", *data, "--loss.regions", "{ms-ssim: 1.0}")


def test_raw_pictures_of_one_folder_are_split_and_one_picture_is_refused(
    run_here: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    both = ["--data.train", str(folder / "suim"), "--data.val", str(folder / "suim"), "--baseline", "false"]
    results = load_results(run_here("run", *both) / "results.json")
    assert [image.key for image in results.images] == ["c1"]
    recipe_helpers.photograph(tmp_path / "one" / "a.png", 0, 48, 56)
    with pytest.raises(ConfigError, match="none is left to train on"):
        run_here("other", "--data.train", str(tmp_path / "one"), "--data.val", str(tmp_path / "one"))


def test_nu2net_enhances_pictures_of_any_size(run_here: Callable[..., Path], folder: Path) -> None:
    assert enhance.configured(["--model.arch", "NU2Net", "--model.multiple_of", "16"]).model.multiple_of == 16
    options = ["--data.train", str(folder / "uieb"), "--data.val", str(folder / "clear"), "--loss.critics", "{}"]
    run = run_here("run", *options, "--model.arch", "NU2Net", "--model.options", "{width: 4, tail: each}")
    assert Image.open(run / "images" / "l1" / "3.png").size == (56, 51)


def test_a_critic_of_night_pictures_learns_beside_the_restorer(run_here: Callable[..., Path], folder: Path) -> None:
    small = "{widths: [8, 10, 12, 16], width: 6, hidden: 16, decomposition: 8}"
    term = f"{{share: 0.2, weights: null, options: {small}, joint: {{lr: 0.001}}}}"
    options = ["--domain", "night", "--data.train", str(folder / "clear"), "--data.val", str(folder / "clear")]
    options += ["--baseline", "false", "--loss.gate", "mini-nr"]
    run = run_here("run", *options, "--loss.critics", f"{{gmsd: 0.5, ddbnet: {term}}}")
    lines = records(run)
    assert all(line["terms"]["ddbnet"]["weighted"] > 0 for line in lines[1:])
    learned = load_file(run / "models" / "ddbnet.safetensors")
    start = create_critic("ddbnet", weights=None, options=yaml.safe_load(small)).state_dict()
    assert any(not torch.equal(start[name], learned[name]) for name in learned)
    assert "| trained NR |" in (run / "results.md").read_text()


@pytest.mark.thorough
def test_two_processes_share_their_labels_and_warn_once(
    launch: Callable[..., object], run_here: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    options = ["--baseline", "false", "--domain", "night", "--loss.gate", "mini-nr", "--train.steps", "8"]
    options += ["--data.train", str(folder / "uieb"), "--data.val_raw", str(folder / "suim" / "images")]
    options += ["--loss.critics", "{gmsd: 0.5, uciqe: {weight: 0.1}}"]
    for attempt in range(2):
        process = launch("enhance.py", "--config", "tiny.yaml", *options, "--output", f"two{attempt}", processes=2)
        output = process.communicate(timeout=240)[0]
        if process.returncode == 0 or ABORT_AT_EXIT not in output:  # rare, after the results are written
            break
    run = tmp_path / f"two{attempt}"
    assert (run / "results.json").exists(), output
    assert output.count("critic 'uciqe' was made for underwater pictures") == 1
    bank = torch.load(run / "checkpoints" / "last" / "custom_checkpoint_0.pkl", weights_only=True)
    assert bank["scores"].keys() == bank["labels"].keys() == {4, 5}  # at every look one of each process
    critic = create_critic("mini-nr")
    for number, label in bank["labels"].items():
        assert float(critic(label[None] / 255)) == pytest.approx(bank["scores"][number], rel=1e-4)


@pytest.mark.thorough
def test_two_processes_train_a_network_whose_regions_rest(
    launch: Callable[..., object], folder: Path, tmp_path: Path, run_here: Callable[..., Path]
) -> None:
    options = ["--baseline", "false", "--data.train", str(folder / "clear"), "--data.val", str(folder / "uieb")]
    options += ["--data.train_masks", str(folder / "of-clear"), "--train.steps", "3", "--model.arch", "SGUIENet"]
    options += ["--model.options", "{width: 8, groups: 1, blocks: 1}", "--output", "two"]
    output = launch("enhance.py", "--config", "tiny.yaml", *options, processes=2).communicate(timeout=240)[0]
    assert (tmp_path / "two" / "results.json").exists(), output


def test_killed_and_resumed_equals_uninterrupted_with_a_bank(
    launch: Callable[..., object], run_here: Callable[..., Path], folder: Path, tmp_path: Path
) -> None:
    options = ["--baseline", "false", "--data.train", str(folder / "uieb"), "--data.val_raw", str(folder / "clear")]
    options += ["--train.steps", "40", "--log.checkpoint_every", "5", "--loss.gate_every", "3"]
    whole = run_here("whole", *options)
    killed = launch("enhance.py", "--config", "tiny.yaml", *options, "--output", "cut")
    wait_for_step(tmp_path / "cut", 11, killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    output = finish(launch("enhance.py", "--config", "tiny.yaml", *options, "--output", "cut"))
    assert "going on from" in output
    cut = tmp_path / "cut"
    assert records(whole) == records(cut)
    assert_same_state(whole / "checkpoints" / "last", cut / "checkpoints" / "last")
    states = [torch.load(run / "checkpoints" / "last" / "custom_checkpoint_0.pkl") for run in (whole, cut)]
    assert states[0]["scores"] == states[1]["scores"] and states[0]["scores"]
    assert all(torch.equal(states[0]["labels"][k], states[1]["labels"][k]) for k in states[0]["labels"])
    assert load_results(whole / "results.json").values == load_results(cut / "results.json").values


def test_domains_have_their_own_defaults_and_starts() -> None:
    water, night = (enhance.configured(["--domain", domain]) for domain in ("underwater", "night"))
    assert (water.output, night.output) == ("runs/underwater", "runs/night")
    assert (water.model.weights, night.model.weights) == ("underwater-start", "night-start")
    assert "mini-underwater" in water.loss.critics and "mini-underwater" not in night.loss.critics
    other = enhance.configured(["--model.options", "{width: 8}"])
    assert other.model.weights is None
    assert water.model.frozen == enhance.COLOURS and other.model.frozen == ()
    assert enhance.configured(["--data.train", "x"]).model.frozen == ()
    assert enhance.configured(["--domain", "night", "--val.judges", "[nlpd]"]).val.judges == ("nlpd",)
    for config in (water, night):
        assert enhance.problems(config) == []
    loss = replace(water.loss, gate="gmsd", regions={"tv": 1.0})
    wrong = replace(water, model=replace(water.model, scale=2), loss=loss)
    told = "\n".join(enhance.problems(wrong))
    for part in ("keeps the size", "'gmsd' needs a reference", "'tv' needs no reference"):
        assert part in told


@pytest.mark.parametrize("name", ["enhance_night", "enhance_start", "enhance_underwater"])
def test_shipped_configurations_are_valid_and_say_how_to_launch(name: str) -> None:
    path = recipe_helpers.RECIPES / "configs" / f"{name}.yaml"
    config = enhance.configured(["--config", str(path)])
    assert enhance.problems(config) == []
    assert gate_problems(config.loss, config.val) == []
    assert f"--config recipes/configs/{path.name}" in path.read_text().split("\n\n")[0]
    if name != "enhance_start":
        assert name == f"enhance_{config.domain}" == f"enhance_{config.loss.domain}"


def test_frozen_parameters_stay_as_they_start(run_here: Callable[..., Path], folder: Path) -> None:
    options = ["--baseline", "false", "--data.train", str(folder / "clear"), "--data.val", str(folder / "uieb")]
    start = run_here("start", *options) / "models" / "net_g.safetensors"
    options += ["--model.weights", str(start), "--model.frozen", "[look, maps.weight]", "--train.lr", "0.01"]
    before, after = load_file(start), load_file(run_here("run", *options) / "models" / "net_g.safetensors")
    same = {name for name in before if torch.equal(before[name], after[name])}
    assert same == {name for name in before if name.startswith(("look", "maps.weight"))}
    with pytest.raises(
        ConfigError, match=r"model\.frozen: no parameter begins with 'body'; known: look, about, to_maps"
    ):
        run_here("other", *options, "--model.frozen", "body")
