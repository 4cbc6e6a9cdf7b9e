"""A module that holds a loss: its checkpoints know nothing of it, in any nesting and however it is wrapped."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist
import torch.distributed.fsdp as fsdp
from safetensors.torch import load_model, save_model
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from perceptloss import CriticLoss
from perceptloss.errors import ConfigError
from perceptloss.integrations.hosts import loss_class

PLAIN = {"net.weight", "net.bias"}


class Restorer(nn.Module):
    """As in Lightning: the loss is an attribute of what trains."""

    def __init__(self, kind: str = "loss") -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 3, 3, padding=1)
        if kind == "loss":
            self.loss_fn = CriticLoss({"lpips-squeeze": {"weight": 1.0, "weights": None, "start": 2}})
        if kind == "host":
            self.losses = nn.ModuleDict({"perceptual": loss_class()(critics={"gmsd": 1.0})})


@pytest.fixture(params=["loss", "host"])
def restorer(request):
    return Restorer(request.param)


def test_no_key_in_any_nesting(restorer):
    assert set(restorer.state_dict()) == PLAIN
    assert set(nn.Sequential(restorer).state_dict()) == {f"0.{key}" for key in PLAIN}
    assert set(restorer.state_dict(prefix="mine.")) == {f"mine.{key}" for key in PLAIN}
    assert set(torch.compile(restorer).state_dict()) == {f"_orig_mod.{key}" for key in PLAIN}
    destination = {}
    assert restorer.state_dict(destination=destination) is destination
    assert list(restorer.parameters()) == list(restorer.net.parameters())


def test_checkpoints_with_and_without_the_loss_load_strictly(restorer, tmp_path):
    bare = Restorer("none")
    bare.load_state_dict(restorer.state_dict())
    restorer.load_state_dict(bare.state_dict())
    earlier = bare.state_dict() | {"loss_fn._extra_state": {"step": 3}}
    if hasattr(restorer, "loss_fn"):
        restorer.load_state_dict(earlier)
    save_model(restorer, str(tmp_path / "with.safetensors"))
    load_model(bare, str(tmp_path / "with.safetensors"))
    save_model(bare, str(tmp_path / "without.safetensors"))
    load_model(restorer, str(tmp_path / "without.safetensors"))


def test_averages_over_state_dicts(restorer):
    average = copy.deepcopy(restorer)
    for old, new in zip(average.state_dict().values(), restorer.state_dict().values(), strict=True):
        old.lerp_(new, 0.5)
    swa = torch.optim.swa_utils.AveragedModel(restorer)
    swa.update_parameters(restorer)
    assert set(swa.state_dict()) == {"n_averaged", *(f"module.{key}" for key in PLAIN)}


def test_distributed_checkpoints(restorer):
    state = get_model_state_dict(restorer)
    assert set(state) == PLAIN
    set_model_state_dict(Restorer("none"), state)


def test_accelerate_saves_the_module_and_on_request_the_loss(tmp_path):
    from accelerate import Accelerator

    def run(steps: int, load: bool) -> CriticLoss:
        accelerator = Accelerator(cpu=True)
        restorer = Restorer()
        loss_fn = restorer.loss_fn
        net, optimizer = accelerator.prepare(restorer, torch.optim.Adam(restorer.parameters()))
        accelerator.register_for_checkpointing(loss_fn)
        if load:
            accelerator.load_state(str(tmp_path))
        for _ in range(steps):
            image = torch.rand(1, 3, 32, 32)
            accelerator.backward(loss_fn(net.net(image), image))
            optimizer.step()
        accelerator.save_state(str(tmp_path))
        return loss_fn

    assert run(3, load=False).state() == {"step": 3, "skipped": {}}
    assert run(1, load=True).state() == {"step": 4, "skipped": {}}


def test_accumulation_with_accelerate_counts_optimizer_steps():
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3)
    net, loss_fn = nn.Conv2d(3, 3, 1), CriticLoss({"gmsd": {"weight": 1.0, "start": 1}})
    net, optimizer = accelerator.prepare(net, torch.optim.Adam(net.parameters()))
    weights = []
    for _ in range(9):
        with accelerator.accumulate(net):
            image = torch.rand(1, 3, 32, 32)
            accelerator.backward(loss_fn(net(image), image))
            optimizer.step()
            optimizer.zero_grad()
            weights.append(loss_fn.report["gmsd"]["weight"])
    assert weights == [0.0] * 3 + [1.0] * 6
    assert loss_fn.step == 3


@pytest.mark.parametrize("wrong", [{}, {"step": "3", "skipped": {}}, {"step": 3}, {"step": 3, "skipped": 1}])
def test_a_state_of_something_else_is_refused(wrong):
    with pytest.raises(ConfigError, match="expected a step and a mapping skipped"):
        CriticLoss({"gmsd": 1.0}).load_state(wrong)


@pytest.fixture
def alone():
    """A process group of one."""
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.skipif(not hasattr(fsdp, "fully_shard"), reason="this torch has FSDP2 elsewhere")
def test_wrapped_for_several_processes(restorer):
    assert set(DistributedDataParallel(restorer).state_dict()) == {f"module.{key}" for key in PLAIN}
    fsdp.fully_shard(restorer, mesh=init_device_mesh("cpu", (1,)))
    assert set(restorer.state_dict()) == PLAIN
    assert set(get_model_state_dict(restorer, options=StateDictOptions(full_state_dict=True))) == PLAIN
