"""Small BasicSR runs for the tests: real photographs, shrunk recipes, subprocesses."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from perceptloss.registry import get_card

if importlib.util.find_spec("basicsr") is None:
    pytest.skip("needs BasicSR (perceptloss[basicsr])", allow_module_level=True)

importlib.import_module("perceptloss.integrations.basicsr")  # sorted imports put BasicSR before us

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes" / "basicsr"
FLAKY_EXIT = (
    "terminate called without an active exception"  # torch's gloo, about one run in fifty, after correct results
)


def write_photographs(folder: Path, side: int = 128, scale: int = 4) -> dict[str, str]:
    """Photographs and their bicubically shrunk versions as PNG files, and the options that name them."""
    import cv2
    from images import photographs

    gt, lq = folder / "gt", folder / "lq"
    for place in (gt, lq):
        place.mkdir(parents=True)
    for i, photo in enumerate(photographs(side)):
        image = (photo.permute(1, 2, 0).flip(-1) * 255).round().byte().numpy()
        cv2.imwrite(str(gt / f"photo{i}.png"), image)
        small = cv2.resize(image, (side // scale, side // scale), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(lq / f"photo{i}.png"), small)
    return {"dataroot_gt": str(gt), "dataroot_lq": str(lq)}


def shrunk(recipe: str, photographs: dict[str, str]) -> dict[str, Any]:
    """A shipped config with small networks, images, random weights and few steps; nothing of the layout changes."""
    opt = yaml.safe_load((RECIPES / recipe).read_text())
    opt["num_gpu"] = 0
    opt["network_g"] |= {"num_feat": 8, "num_block": 1}
    for name, dataset in opt["datasets"].items():
        dataset.update(photographs)
        if name == "train":
            dataset.update(gt_size=64, batch_size_per_gpu=2, num_worker_per_gpu=0, dataset_enlarge_ratio=4)
            dataset["persistent_workers"] = False
    opt["path"]["pretrain_network_g"] = None
    train = opt["train"]
    train["total_iter"] = 4
    for term in [*train.get("critics", ()), *train.get("perceptual_opt", {}).get("critics", ())]:
        no_files(term)
        if term.get("start"):
            term["start"] = 2
        if term.get("ramp"):
            term["ramp"] = 2
    for metric in opt["val"]["metrics"].values():
        if "critic" in metric["type"]:
            no_files(metric)
    opt["val"]["val_freq"] = 2
    opt["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 2}
    if "network_d" in opt:  # the shipped one takes patches of 128 pixels only
        opt["network_d"] = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 4}
    return opt


def no_files(entry: dict[str, Any]) -> None:
    """Random weights, where there are any."""
    name = entry.get("critic") or entry["type"].removeprefix("calculate_critic_").replace("_", "-")
    if get_card(name).weights:
        entry["weights"] = None


def launch(folder: Path, opt: dict[str, Any], *flags: str, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Run the recipe as a user does, in `folder`; two processes run the driver that replaces NCCL by gloo."""
    file = folder / f"{opt['name']}.yml"
    file.write_text(yaml.safe_dump(opt, sort_keys=False))
    start = [sys.executable]
    script = RECIPES / "train.py"
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        script, flags = Path(__file__).with_name("cpu_dist.py"), ("--launcher", "pytorch", *flags)
    env = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
        "PERCEPTLOSS_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [*start, str(script), "-opt", str(file), *flags]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)


def log_of(folder: Path, name: str) -> str:
    """The newest log file of a run."""
    files = sorted((folder / "experiments" / name).glob("train_*.log"), key=lambda f: f.stat().st_mtime_ns)
    return files[-1].read_text()


def rows(log: str) -> dict[int, dict[str, float]]:
    """Iteration to what the log says of it, in the log's order."""
    found = {}
    for line in log.splitlines():
        step = re.search(r"iter:\s*([\d,]+), lr", line)
        if step:
            values = re.findall(r"(\w[\w\-.]*): (-?[\d.]+e[+-]\d+|nan)", line.split("lr:")[1])
            found[int(step[1].replace(",", ""))] = {key: float(value) for key, value in values}
    return found


def scalars(folder: Path, name: str) -> dict[str, dict[int, float]]:
    """Tag to step to value of a run's TensorBoard files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tb_logger" / name))
    events.Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}
