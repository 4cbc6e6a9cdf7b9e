"""FSDP on two CPU processes. Accelerate shards on accelerators only, so the launched script pretends to be on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import recipe_helpers
import sr
import torch
from safetensors.torch import load_file

SCRIPT = """
import sys
sys.path.insert(0, {recipes!r})
import accelerate.state as state
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

start = state.AcceleratorState.__init__

def sharded(self, *args, **kwargs):
    start(self, *args, **kwargs)
    self.distributed_type = DistributedType.FSDP
    self.fsdp_plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap", transformer_cls_names_to_wrap=["RRDB"],
        state_dict_type="SHARDED_STATE_DICT", reshard_after_forward=True, cpu_ram_efficient_loading=False)

state.AcceleratorState.__init__ = sharded
if __name__ == "__main__":
    import sr
    sr.main(sys.argv[1:])
"""
NETWORK = "{num_in_ch: 3, num_out_ch: 3, num_feat: 4, num_block: 2, num_grow_ch: 2, scale: 4}"


def launch(tmp_path: Path, options: list[str], output: str) -> Path:
    (tmp_path / "sharded.py").write_text(SCRIPT.format(recipes=str(recipe_helpers.RECIPES)))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "sharded.py"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_FSDP": "true", "OMP_NUM_THREADS": "1"}
    for attempt in range(2):  # a process may rarely abort at its exit, after the results are written
        home = tmp_path / f"{output}{attempt}"
        ended = subprocess.run(
            [*command, *options, "--output", str(home)], cwd=tmp_path, env=environment, text=True, capture_output=True
        )
        if ended.returncode == 0 or "terminate called without an active exception" not in ended.stderr:
            break
    assert (home / "results.json").exists(), ended.stderr
    return home


@pytest.mark.thorough
@pytest.mark.usefixtures("in_process")
def test_sharded_training_equals_one_process_and_resumes_to_the_same_bits(tiny: list[str], tmp_path: Path) -> None:
    text = (
        "--model.arch RRDBNet --baseline false --train.steps 6 --train.optimizer adamw --train.ema 0.9 --val.every 3 "
        "--log.checkpoint_every 3"
    )
    options = [*tiny, *text.split(), "--model.options", NETWORK]
    sharded = launch(tmp_path, options, "sharded")
    last = sharded / "checkpoints" / "last"
    assert len(list((last / "pytorch_model_fsdp_0").glob("*.distcp"))) == 2
    shards = [load_file(last / f"ema_{rank}.safetensors") for rank in (0, 1)]
    whole = load_file(sharded / "models" / "net_g_ema.safetensors")
    assert sum(t.numel() for shard in shards for t in shard.values()) == sum(t.numel() for t in whole.values())
    sr.main([*options, "--data.batch", "4", "--output", str(tmp_path / "one")])
    for name in ("net_g", "net_g_ema"):
        a, b = (load_file(home / "models" / f"{name}.safetensors") for home in (sharded, tmp_path / "one"))
        assert a.keys() == b.keys()
        assert all(torch.allclose(a[k], b[k], atol=2e-5) for k in a)
    resumed = launch(tmp_path, [*options, "--resume", str(last.with_name("step_00000003"))], "resumed")
    for name in ("net_g", "net_g_ema"):
        a, b = (load_file(home / "models" / f"{name}.safetensors") for home in (sharded, resumed))
        assert all(torch.equal(a[k], b[k]) for k in a)
    assert json.loads((resumed / "results.json").read_text())["provenance"]["run"]["distributed_type"] == "FSDP"
