"""Runs the recipe with gloo on CPUs, where BasicSR knows NCCL on GPUs only, and writes down what each rank logged."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from perceptloss.integrations.basicsr import train_pipeline


def main() -> None:
    import basicsr.utils.dist_util
    import torch.distributed as dist
    from basicsr.models.base_model import BaseModel
    from torch.nn.parallel import DistributedDataParallel

    basicsr.utils.dist_util._init_dist_pytorch = lambda backend: dist.init_process_group("gloo")
    BaseModel.model_to_device = lambda self, net: DistributedDataParallel(net.to(self.device))
    reduce, seen = BaseModel.reduce_loss_dict, []

    def spy(self: Any, losses: dict[str, Any]) -> dict[str, float]:
        own = {key: float(value) for key, value in losses.items()}
        seen.append({"own": own, "logged": dict(reduce(self, losses))})
        return seen[-1]["logged"]

    BaseModel.reduce_loss_dict = spy
    train_pipeline(str(Path.cwd()))
    facts = {"world_size": dist.get_world_size(), "steps": seen}
    Path(f"rank{os.environ['RANK']}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main()
