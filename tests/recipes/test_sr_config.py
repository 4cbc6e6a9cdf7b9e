"""Options of the recipe: precedence, types, ranges, and every problem at once."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import recipe_helpers
import sr
import yaml
from _lib.checks import option_problems
from _lib.switch import switched
from accelerate.commands.config.config_args import load_config_from_file

from perceptloss.errors import ConfigError
from perceptloss.runs import config as options
from perceptloss.runs.options import Loss

CONFIGS = recipe_helpers.RECIPES / "configs"


def problems(config: sr.Config) -> list[str]:
    return option_problems(config.data, config.model, config.loss, config.train, config.val)


def failure(argv: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        options.load(sr.Config, argv)
    return str(caught.value)


def test_command_line_wins_over_file_and_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("train: {steps: 7, lr: 1e-4}\nloss: {critics: {ssim: 0.5}}\n")
    config = options.load(sr.Config, ["--config", str(file), "--train.steps", "9"])
    assert config.train.steps == 9
    assert config.train.lr == 1e-4  # which YAML 1.1 alone would leave a string
    assert config.loss.critics == {"ssim": 0.5}
    assert config.train.ema == sr.Config().train.ema
    assert config.model.options == sr.Config().model.options


def test_the_last_of_two_equal_flags_wins_and_a_file_says_everything_once(tmp_path: Path) -> None:
    assert options.load(sr.Config, ["--data.patch", "64", "--data.patch=32"]).data.patch == 32
    file = tmp_path / "a.yaml"
    file.write_text("data: {patch: 64}\ndata.patch: 32\n")
    assert "data.patch: given twice" in failure(["--config", str(file)])
    file.write_text("data: &d {patch: 64}\ntrain:\nmodel: {<<: {scale: 2}, arch: RFDN}\n")  # an empty section, a merge
    config = options.load(sr.Config, ["--config", str(file)])
    assert (config.data.patch, config.model.scale, config.model.arch) == (64, 2, "RFDN")


BOMB = "a0: &a0 [x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (BOMB, "more than 100000 values"),
        ("loss: {critics: " + "[" * 5000 + "]" * 5000 + "}", "nested more than 50 deep"),
        ("train: {steps: " + "9" * 5000 + "}", "digits"),
        ("train: {steps: 0x" + "f" * 500 + "}", "below 2^64, got one of 2000 bits"),
        ("train: {lr: 1e400}", "expected a number, got inf"),
        ("? [a, b]\n: c", "expected a name as a key, got ['a', 'b']"),
        ("? {a: b}\n: c", "expected a name as a key"),
        ("a: &a [*a]", "alias *a holds itself"),
        ("x: 2001-99-99", "month must be in 1..12"),
        ("train: 7", "train: expected a mapping of options, got 7"),
        ("output: [" + "1, " * 20_000 + "]", "output: expected text, got [1, 1, 1, 1, 1, 1, ...]"),
        ("a" * 5_000_000, "expected at most 4194304 bytes"),
    ],
)
def test_a_file_by_a_stranger_is_refused_in_a_sentence(tmp_path: Path, text: str, part: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    message = failure(["--config", str(file)])
    assert part in message
    assert len(message) < 1000


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "expected a file, got a folder, pipe or device" in failure(["--config", str(tmp_path / "pipe.yaml")])


def test_order_of_arguments_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("train: {steps: 7}\n")
    assert options.load(sr.Config, ["--train.steps=9", "--config", str(file)]).train.steps == 9


def test_values_are_typed() -> None:
    text = "--mixed_precision no --output 12 --data.val [c,d] --val.border null --data.check false --overwrite"
    argv = [*text.split(), "--data.train", "a b", "--loss.critics", "[{critic: ssim, weight: 1}]"]
    argv += ["--train.betas", "[0.5, 0.9]"]
    config = options.load(sr.Config, argv)
    assert (config.mixed_precision, config.output, config.overwrite) == ("no", "12", True)
    assert (config.data.train, config.data.val, config.data.check) == (("a b",), ("c", "d"), False)
    assert (config.val.border, config.train.betas) == (None, (0.5, 0.9))
    assert config.loss.critics == [{"critic": "ssim", "weight": 1}]


def test_unquoted_no_in_yaml_is_a_precision(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("mixed_precision: no\n")
    assert options.load(sr.Config, ["--config", str(file)]).mixed_precision == "no"


def test_all_problems_come_at_once_with_hint_and_source(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("train: {stepz: 7, lr: -1}\nfoo: 1\n")
    text = failure(
        [
            "--config",
            str(file),
            "--data.bach",
            "2",
            "--data.patch",
            "half",
            "--train.ema",
            "1.5",
            "stray",
            "--val.every",
            "2.5",
        ]
    )
    for part in (
        "unknown option 'train.stepz'; did you mean 'train.steps'?",
        "unknown option 'foo'",
        "did you mean 'data.batch'",
        "data.patch: expected a whole number, got 'half' (command line)",
        f"train.lr: must be above 0, got -1.0 ({file})",
        "train.ema: must be at least 0, below 1, got 1.5",
        "unexpected 'stray'",
        "val.every: expected a whole number, got 2.5",
    ):
        assert part in text, text
    assert text.startswith("8 problems")


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["--loss.grad", "magic"], "expected one of fused, checkpoint, autograd, got 'magic'"),
        (["--loss.critics", "{a: [}"], "not valid YAML"),
        (["--train.betas", "[0.9]"], "expected 2 values"),
        (["--train.steps", "true"], "expected a whole number"),
        (["--data.check", "yep"], "expected true or false"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_command_lines(argv: list[str], part: str) -> None:
    assert part in failure(argv)


def test_repeated_key_in_yaml_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("loss:\n  critics: {ssim: 1, ssim: 2}\n")
    assert "'ssim' appears twice" in failure(["--config", str(file)])


def test_contradictions_are_listed_together() -> None:
    text = "--data.patch 34 --train.warmup 5000 --val.judges [vff] --val.best gmsd2 --data.val_lq x"
    argv = [*text.split(), "--loss.critics", "{ssimm: 1, gmsd: -1}"]
    found = "\n".join(problems(options.load(sr.Config, argv)))
    for part in (
        "data.patch: 34",
        "train.warmup",
        "did you mean 'ssim'",
        "gmsd: 'weight'",
        "'vff'",
        "val.best",
        "data.val_lq",
    ):
        assert part in found, found


def test_a_judge_is_not_trained_on_and_patches_suit_every_critic() -> None:
    argv = [
        "--data.patch",
        "32",
        "--loss.critics",
        "{ms-ssim: 1, gmsd: 1}",
        "--val.judges",
        "[gmsd]",
        "--val.best",
        "psnr-y",
    ]
    found = problems(options.load(sr.Config, argv))
    assert len(found) == 2
    assert "'ms-ssim' needs sides of at least 161" in found[0]
    assert any("judge 'gmsd' is trained on" in problem for problem in found)


def test_judges_and_critics_may_have_the_names_of_other_libraries() -> None:
    argv = ["--loss.critics", "{srsim: 1}", "--val.judges", "[ms_ssim, sr-sim, liqe]", "--val.best", "ms-ssim"]
    absent, trained = problems(options.load(sr.Config, argv))
    assert "'sr-sim' is trained on" in trained
    assert "there is no critic 'liqe' here: near it are 'maniqa'" in absent


def test_nothing_to_minimise_is_refused() -> None:
    argv = ["--loss.critics", "{}", "--loss.pixel_weight", "0"]
    assert "nothing to minimise" in "\n".join(problems(options.load(sr.Config, argv)))


def test_what_critics_see_is_less_by_the_shift_and_a_budget_is_measured_on_strips() -> None:
    argv = ["--data.patch", "64", "--loss.shift", "36", "--loss.critics", "{ssim: {weight: 1, crop: 60}, mini-nr: 1}"]
    found = problems(options.load(sr.Config, [*argv, "--loss.budget", "{ms-ssim: -0.01}"]))
    for side in (60, 28):
        assert sum(f"sees {side} of data.patch 64 less loss.shift 36" in problem for problem in found) == 1
    assert sum("'ms-ssim' needs sides of at least 161" in p and "have 64, as data.patch" in p for p in found) == 1


def test_the_saved_configuration_reads_back(tmp_path: Path) -> None:
    config = options.load(
        sr.Config, ["--data.train", "x", "--train.lr", "3e-4", "--loss.critics", "{ssim: {weight: 1, start: 5}}"]
    )
    assert options.from_mapping(sr.Config, yaml.safe_load(options.dump(config))) == config


def test_differences_name_options_and_leave_out_the_free_ones() -> None:
    new = options.load(sr.Config, ["--train.lr", "0.5", "--log.every", "3", "--output", "x"])
    assert options.differences(sr.Config(), new, ("log.", "output")) == [f"train.lr: {sr.Config().train.lr} -> 0.5"]


def test_help_shows_every_option_with_its_default() -> None:
    text = options.help_text(sr.Config, "usage")
    for key in options.flatten(sr.Config()):
        assert f"--{key}  (" in text
    assert f"--train.steps  (a whole number, at least 1; default {sr.Config().train.steps})" in text
    with pytest.raises(options.HelpRequested):
        options.load(sr.Config, ["--train.steps", "1", "--help"])


def test_default_yaml_is_the_defaults() -> None:
    assert options.load(sr.Config, ["--config", str(CONFIGS / "sr_default.yaml")]) == sr.Config()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("sr_*.yaml")), ids=lambda p: p.name)
def test_shipped_configurations_are_valid_and_say_how_to_launch(path: Path) -> None:
    config = options.load(sr.Config, ["--config", str(path)])
    assert problems(config) == []
    header = path.read_text().split("\n\n")[0]
    assert header.startswith("#")
    assert "accelerate launch recipes/sr.py" in header or f"--config recipes/configs/{path.name}" in header


@pytest.mark.parametrize("name", ["accelerate_fsdp.yaml", "accelerate_deepspeed.yaml"])
def test_launch_configurations_are_accepted_by_accelerate(name: str) -> None:
    config = load_config_from_file(str(CONFIGS / name))
    assert config.num_processes == 8
    assert config.distributed_type.value == name.removesuffix(".yaml").removeprefix("accelerate_").upper()


PATCH = {"critic": "patch", "weights": "p.safetensors"}
NR = {"critic": "mini-nr", "share": 0.1}


@pytest.mark.parametrize(
    ("joint", "critics", "expected"),
    [
        (None, {"gmsd": 0.5}, {"gmsd": 0.5}),
        (True, {"gmsd": 0.5, "lpips-squeeze": 0.3}, {"gmsd": 0.5, "lpips-squeeze": {"weight": 0.3, "joint": True}}),
        (True, [{"critic": "patch", "joint": {"lr": 1}}], [{"critic": "patch", "joint": {"lr": 1}}]),
        (True, {"lpips-squeeze": 0}, {"lpips-squeeze": 0}),
        (True, {"mine": NR}, {"mine": NR | {"joint": True}}),
        (True, {"nothing": 1}, {"nothing": 1}),
        (False, {"patch": {"weights": None, "joint": True}, "gmsd": 1}, {"gmsd": 1}),
        (False, {"mine": NR | {"joint": {"learns": "head"}}}, {"mine": NR}),
        (False, [PATCH | {"joint": True}], [PATCH]),
        (True, {"niqe": 0.1, "ilniqe": 0.1}, {"niqe": 0.1, "ilniqe": 0.1}),  # statistics, which cannot learn
        (True, ["gmsd", 3, [1], {"critic": ["a"]}], ["gmsd", 3, [1], {"critic": ["a"]}]),
        (True, {3: 0.1, "gmsd": None}, {3: 0.1, "gmsd": None}),
        (False, {"gmsd": None}, {"gmsd": None}),
    ],
)
def test_one_switch_lets_critics_learn_or_none(joint: bool | None, critics: Any, expected: Any) -> None:
    loss = Loss(critics=critics, anchors=["any"])
    assert switched(loss, joint).critics == expected
    assert switched(loss, joint).anchors == ([] if joint is False else ["any"])
    assert loss.critics == critics


def test_the_switch_is_an_option_of_the_command(tiny: list[str], tmp_path: Path) -> None:
    critics = "{gmsd: 0.5, patch: {weights: null, share: 0.2, options: {width: 8}, joint: {lr: 0.001}}}"
    short = ["--baseline", "false", "--train.steps", "3", "--loss.critics", critics]
    sr.main([*tiny, *short, "--critic.joint", "false", "--output", str(tmp_path / "frozen")])
    last = json.loads((tmp_path / "frozen" / "log.jsonl").read_text().splitlines()[0])
    assert last["terms"].keys() == {"gmsd"}
