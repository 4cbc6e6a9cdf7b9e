"""The calling conventions of hosts that find losses in a registry, each played by a small stand-in."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from fakes import Records, registered
from images import pair

from perceptloss import CriticLoss, list_critics
from perceptloss.errors import ConfigError, GradientError, InputError
from perceptloss.integrations import hosts
from perceptloss.integrations.hosts import identifier, loss_class, register_losses
from perceptloss.integrations.metrics import register_metrics

LPIPS = {"weights": None}


class Registry(dict):
    """As in BasicSR and its descendants: files objects under their name, each once."""

    def register(self, obj):
        assert obj.__name__ not in self
        self[obj.__name__] = obj

    def build(self, opt):
        opt = dict(opt)
        return self[opt.pop("type")](**opt)


@pytest.fixture
def images():
    x, y = pair(2, 48)
    return x.requires_grad_(), y


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    registered(monkeypatch)


def gradient(loss, x):
    (grad,) = torch.autograd.grad(loss, x)
    return grad


def test_a_host_that_weighs_gets_the_weight_applied_once(images):
    """traiNNer-redux: a list of losses, each multiplied by the absolute value of its attribute."""
    x, y = images
    registry = Registry()
    register_losses(registry, weighs="host")
    config = [
        {"type": "critic_lpips_squeeze", "loss_weight": 0.25, **LPIPS},
        {"type": "critic_gmsd", "loss_weight": -0.5},
    ]
    losses = {opt["type"]: registry.build(opt).to("cpu", memory_format=torch.channels_last) for opt in config}
    assert len(losses) == 2  # by type, as the host keeps them
    total = 0
    for loss in losses.values():
        value = loss(x, y)
        assert value.ndim == 0
        assert value > 0
        total = total + value * abs(loss.loss_weight)
    same = CriticLoss({"lpips-squeeze": {"weight": 0.25, **LPIPS}, "gmsd": 0.5})(x, y)
    torch.testing.assert_close(total, same)
    torch.testing.assert_close(gradient(total, x), gradient(same, x))


def test_a_host_that_weighs_reads_a_warm_up(images):
    """traiNNer-redux of 2025: every loss has `warmup_iter`, -1 for none."""
    assert loss_class("critic_gmsd", critic="gmsd", weighs="host")().warmup_iter == -1
    assert loss_class(weighs="host")({"gmsd": 1.0}, warmup_iter=500).warmup_iter == 500
    with pytest.raises(ConfigError, match="the host does not weigh here: give the terms ramp: 500"):
        loss_class()({"gmsd": 1.0}, warmup_iter=500)
    with pytest.raises(ConfigError, match="must be a whole number, got 'soon'"):
        loss_class(weighs="host")({"gmsd": 1.0}, warmup_iter="soon")


def test_a_host_that_leaves_weighing_to_the_loss(images):
    """neosr: every slot wants a weighted tensor, may run under autocast, in channels_last."""
    x, y = images
    registry = Registry()
    register_losses(registry)
    opt = {"type": "critic_lpips_squeeze", "loss_weight": 0.25, **LPIPS}
    loss = registry.build(opt).to("cpu", memory_format=torch.channels_last, non_blocking=True)
    x_last, y_last = (t.to(memory_format=torch.channels_last) for t in (x, y))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(x_last, y_last)
        low = loss(x_last.bfloat16(), y_last.bfloat16())
    same = CriticLoss({"lpips-squeeze": {"weight": 0.25, **LPIPS}})(x, y)
    assert value.ndim == 0
    torch.testing.assert_close(value, same)
    torch.testing.assert_close(gradient(value, x), gradient(same, x))
    torch.testing.assert_close(low.float(), same, rtol=0.02, atol=0)  # the images were rounded, nothing else


def test_a_slot_that_unpacks_two_values(images):
    """BasicSR: `l_percep, l_style = self.cri_perceptual(output, gt)`."""
    registry = Registry()
    register_losses(registry, pairs=True)
    loss = registry.build({"type": "CriticPerceptualLoss", "loss_weight": 2.0, "critics": {"gmsd": 0.5}})
    percep, style = loss(*images)
    assert style is None
    torch.testing.assert_close(percep, CriticLoss({"gmsd": 1.0})(*images))
    assert "CriticPerceptualLoss" not in (register_losses(Registry()))


@pytest.mark.parametrize("options", [{}, {"crop": 32}])
def test_hosts_may_have_another_default_device(images, options):
    """neosr makes cuda the default device: nothing may be allocated where the images are not."""
    x, y = images
    squeeze = {"critic": "lpips-squeeze", "weight": 1.0, **LPIPS, **options}
    loss = loss_class()(critics=[squeeze, {"critic": "ssim", "weight": 1.0}])
    same = gradient(loss(x, y), x)
    loss.criterion.step = 0
    loss._is_proven = False
    with torch.device("meta"):
        value = loss(x, y)
    assert value.device.type == "cpu"
    torch.testing.assert_close(gradient(value, x), same)


def test_clips_are_judged_frame_by_frame(images):
    x, y = images
    loss = loss_class()(critics={"gmsd": 1.0})
    torch.testing.assert_close(loss(x[:, None], y[:, None]), loss(x, y))
    torch.testing.assert_close(loss(x[None], y[None]), loss(x, y))


def test_names_follow_one_rule():
    registry = Registry()
    names = register_losses(registry)
    assert identifier("lpips-vgg") == "critic_lpips_vgg"
    assert set(names) == {"CriticLoss", *(identifier(card.name) for card in list_critics())}
    assert all(registry[name].__name__ == name for name in names)


def test_registering_again_adds_what_is_new(monkeypatch):
    registry = Registry()
    before = register_losses(registry)
    from perceptloss import registry as core

    entry = core._registered["fake-alone"]
    monkeypatch.setitem(core._registered, "fake-later", entry)
    monkeypatch.setattr(hosts, "list_critics", lambda: [*list_critics(), type("C", (), {"name": "fake-later"})])
    assert set(register_losses(registry)) - set(before) == {"critic_fake_later"}
    assert "critic_fake_later" in registry


def test_a_name_that_is_taken_registers_nothing():
    registry = Registry(CriticLoss=torch.nn.L1Loss)
    with pytest.raises(ConfigError, match=r"'CriticLoss' is taken by torch"):
        register_losses(registry)
    assert list(registry) == ["CriticLoss"]


def test_another_convention_in_the_same_registry_is_refused():
    """Else the weight would be applied twice or never."""
    registry = Registry()
    register_losses(registry, weighs="loss")
    with pytest.raises(ConfigError, match="'CriticLoss' is registered already, weighed by the loss"):
        register_losses(registry, weighs="host")


@pytest.mark.parametrize("facts", [{"critic": "gmsd"}, {"weighs": "host", "returns": "pair"}])
def test_a_module_with_a_loss_is_pickled_whole(images, facts, tmp_path):
    loss = loss_class("critic_gmsd", **facts)(**({} if "critic" in facts else {"critics": {"gmsd": 1.0}}))
    torch.save(torch.nn.ModuleList([loss]), tmp_path / "whole.pt")
    (again,) = torch.load(tmp_path / "whole.pt", weights_only=False)
    assert type(again) is type(loss)
    with torch.no_grad():
        assert again(*images) == loss(*images)


def test_its_state_is_that_of_its_critics(images):
    """For `accelerator.register_for_checkpointing`, and as earlier versions saved it."""
    loss, again = (loss_class()(critics={"gmsd": {"weight": 1.0, "start": 2}}) for _ in range(2))
    loss.criterion.step = 7
    again.load_state_dict(loss.state_dict())
    assert again.state() == {"step": 7, "skipped": {}}
    again.load_state_dict({"criterion._extra_state": {"step": 9, "skipped": {"gmsd": 2}}})
    assert again.state() == {"step": 9, "skipped": {"gmsd": 2}}
    assert not torch.nn.Sequential(loss).state_dict()


@pytest.mark.parametrize("wrong", [None, np.zeros((8, 8, 3)), "image"])
def test_no_image_is_named(images, wrong):
    loss = loss_class("critic_gmsd", critic="gmsd")()
    with pytest.raises(InputError, match=f"got {type(wrong).__name__}"):
        loss(wrong, images[1])
    if wrong is not None:
        with pytest.raises(InputError, match=f"got {type(wrong).__name__}"):
            loss(images[0], wrong)


def test_wrong_keys_come_before_missing_weights(monkeypatch):
    monkeypatch.setattr(hosts, "CriticLoss", lambda *_, **__: pytest.fail("built"))
    with pytest.raises(ConfigError, match="unknown key 'weight'"):
        loss_class("critic_lpips_vgg", critic="lpips-vgg")(weight=1.0)


def test_everything_wrong_is_listed_at_once():
    with pytest.raises(ConfigError) as caught:
        loss_class()(critics=[{"critic": "gmsdd", "weight": 1.0}], loss_weight="1e-3", micro_bach=2, grad="fuse")
    found = "\n".join(caught.value.problems)
    for part in ("did you mean 'gmsd'", "loss_weight must be", "did you mean 'micro_batch'", "grad must be one of"):
        assert part in found
    one = loss_class("critic_gmsd", critic="gmsd")
    with pytest.raises(ConfigError) as caught:
        one(critics={"ssim": 1.0}, weight=0.1, shap="hinge", loss_weight=-1)
    found = "\n".join(caught.value.problems)
    for part in ("'critics' goes with", "or 'loss_weight'", "did you mean 'shape'", "must be a positive"):
        assert part in found


def test_a_zero_weight_is_refused_by_every_host():
    for weighs in ("loss", "host"):
        with pytest.raises(ConfigError, match="other than 0"):
            loss_class(critic="gmsd", weighs=weighs)(loss_weight=0)


def test_term_options_of_one_critic(images):
    loss = loss_class("critic_gmsd", critic="gmsd")(shape="hinge", tolerance=0.01, crop=32, grad="autograd", seed=3)
    (term,) = loss.criterion.terms
    assert (term.spec.shape, term.spec.tolerance, term.spec.crop, term.weight_at(0)) == ("hinge", 0.01, 32, 1.0)
    assert (loss.criterion.grad, loss.criterion.seed) == ("autograd", 3)


def test_the_first_call_proves_the_gradient(images):
    loss = loss_class()(critics={"gmsd": 1.0, "fake-deaf": 1.0})
    with torch.no_grad():
        loss(*images)  # scoring is fine
    with pytest.raises(GradientError, match="'fake-deaf'"):
        loss(*images)


def test_a_schedule_without_iterations_is_announced(images, caplog):
    loss = loss_class()(critics={"gmsd": {"weight": 1.0, "start": 2}})
    with caplog.at_level(logging.WARNING, "perceptloss"):
        values = []
        for _ in range(4):
            value = loss(*images)
            value.backward()
            values.append(value.item())
    assert values[:2] == [0.0, 0.0]
    assert min(values[2:]) > 0
    said = {id(record) for record in caplog.records if "starts anew when training is resumed" in record.message}
    assert len(said) == 1
    loss.step = 0
    assert loss(*images).item() == 0.0


def test_what_needs_more_than_calls_is_refused_with_what_to_do():
    patch = {"critic": "patch", "weights": None, "weight": 0.1}
    with pytest.raises(ConfigError) as caught:
        loss_class(weighs="host")(critics=[patch | {"joint": {"lr": 1e-3}}], budget={"psnr": -0.5}, grad="fuse")
    joint, budget = (problem for problem in caught.value.problems if "this host" in problem)
    assert joint.startswith("patch: no critic learns in this host")
    assert "recipes/sr.py" in joint
    assert "smaller weights or shares" in budget
    assert any("grad must be one of" in problem for problem in caught.value.problems)
    for wrong in ({"critics": {"patch": {**patch, "joint": {}}}}, {"critics": [patch | {"joint": True}]}):
        with pytest.raises(ConfigError, match="no critic learns"):
            loss_class()(**wrong)
    with pytest.raises(ConfigError, match="no critic learns"):
        loss_class("critic_mini_nr", critic="mini-nr")(joint=True)
    loss_class()(critics=[patch | {"joint": False}])


@pytest.mark.parametrize("weighs", ["loss", "host"])
def test_a_share_is_one_of_an_l1_loss_in_another_slot(images, weighs):
    x, y = images
    one = loss_class("critic_gmsd", critic="gmsd", weighs=weighs)(share=0.25, pixel_weight=0.5, shift=8)
    two = loss_class(weighs=weighs)(critics={"gmsd": {"share": 0.25}}, pixel_weight=0.5, shift=8)
    pixel = gradient(0.5 * (x - y).abs().mean(), x).norm()
    for loss in (one, two):
        norm = gradient(loss(x, y), x).norm()
        torch.testing.assert_close(norm / (norm + pixel), torch.tensor(0.25), rtol=1e-3, atol=0)


def test_a_shift_leaves_the_first_call_images_that_are_large_enough(images):
    loss = loss_class()(critics={"fake-large": 1.0}, shift=8)
    big = torch.rand(1, 3, 170, 170)
    assert loss(big.clone().requires_grad_(), big).item() == 0.0


def test_range_of_hosts_that_work_from_minus_one_to_one(images):
    x, y = images
    loss = loss_class()(critics={"gmsd": 1.0}, input_range=[-1, 1])
    torch.testing.assert_close(loss(2 * x - 1, 2 * y - 1), CriticLoss({"gmsd": 1.0})(x, y), rtol=1e-4, atol=1e-6)


def test_hosts_need_no_framework():
    import subprocess
    import sys

    code = "import sys, perceptloss.integrations.hosts; assert not {'basicsr', 'torchvision'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


class ModuleRegistry(dict):
    """As in mmengine."""

    def register_module(self, name, module):
        self[name] = module


def test_a_registry_of_modules(images):
    registry = ModuleRegistry()
    names = register_losses(registry)
    loss = registry["CriticLoss"](loss_weight=2.0, critics=[{"critic": "gmsd", "weight": 1.0}])
    torch.testing.assert_close(loss(*images), 2 * CriticLoss({"gmsd": 1.0})(*images))
    assert register_losses(registry) == names


@pytest.mark.parametrize("none", [[], {}])
def test_no_critics_are_none(images, none):
    x, y = images
    loss = loss_class()(critics=none)
    assert not gradient(loss(x, y), x).any()


@pytest.mark.parametrize("registry", [Registry(), ModuleRegistry()])
def test_metrics_of_hosts_without_basicsr(registry):
    """neosr and traiNNer-redux hand over arrays of 8 bits and the options; traiNNer-redux also a device."""
    register_metrics(registry)
    grey, other = (np.random.default_rng(n).integers(0, 255, (48, 40, 1), dtype=np.uint8) for n in (0, 1))
    metric, colour = registry["calculate_critic_gmsd"], np.repeat(grey, 3, 2)
    value = metric(img=colour, img2=np.repeat(other, 3, 2), crop_border=4, device=torch.device("cpu"))
    for shape in (grey.shape, grey.shape[:2]):
        pair = grey.reshape(shape), other.reshape(shape)
        assert registry["calculate_critic"](*pair, 4, critic="gmsd", grey="replicate") == value
        with pytest.raises(InputError, match=r"one channel.*grey: replicate"):
            metric(*pair)
    with pytest.raises(InputError, match=r"need arrays.* got NoneType"):
        metric(None, grey)
    with pytest.raises(ConfigError, match="grey must be one of"):
        metric(grey, grey, grey="yes")


def test_what_is_logged_goes_to_the_log_of_the_host(monkeypatch):
    monkeypatch.setattr(Registry, "__module__", "somehost.utils.registry")
    register_losses(Registry())
    host, ours = logging.getLogger("somehost"), logging.getLogger("perceptloss")
    records = Records()
    host.addHandler(records)
    try:
        ours.getChild("loss").warning("rank 0")
        host.setLevel(logging.ERROR)
        ours.getChild("loss").warning("rank 1")
        ours.getChild("loss").info("nothing")
    finally:
        host.removeHandler(records)
        ours.handlers = [handler for handler in ours.handlers if getattr(handler, "host", "") != "somehost"]
    assert records.lines == ["rank 0", "(not on rank 0) rank 1"]
