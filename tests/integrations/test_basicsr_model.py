"""Critics inside unmodified BasicSR models: gradients, log entries, schedules, faults."""

from __future__ import annotations

import bsr  # noqa: F401  skips where BasicSR is missing
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from basicsr.models import build_model
from basicsr.utils.registry import LOSS_REGISTRY, MODEL_REGISTRY
from fakes import Brightness, batch, options, registered
from PIL import Image

import perceptloss.integrations.basicsr
from perceptloss import CriticLoss, create_critic
from perceptloss.compare import load_results
from perceptloss.errors import ConfigError, GradientError, NonFiniteLoss
from perceptloss.integrations.basicsr import with_critics
from perceptloss.integrations.basicsr.options import read_plan
from perceptloss.maps.artefacts import artefact_weights

GMSD = {"critic": "gmsd", "weight": 0.3}
LPIPS = {"critic": "lpips-squeeze", "weight": 0.5, "weights": None}


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    registered(monkeypatch)
    monkeypatch.setattr(Brightness, "limit", float("inf"))


def step(model, number, **kwargs):
    data = batch(**kwargs)
    model.feed_data(data)
    model.optimize_parameters(number)
    return model.get_current_log()


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.net_g.parameters()])


def test_gradient_is_that_of_pixel_loss_plus_critics():
    torch.manual_seed(1)
    model = build_model(options(critics=[GMSD, LPIPS]))
    torch.manual_seed(1)
    plain = build_model(options())
    data = batch()
    output = plain.net_g(data["lq"])
    loss = (output - data["gt"]).abs().mean()
    loss = loss + 0.3 * create_critic("gmsd")(output, data["gt"]).mean()
    loss = loss + 0.5 * create_critic("lpips-squeeze", weights=None)(output, data["gt"]).mean()
    loss.backward()
    step(model, 1)
    torch.testing.assert_close(gradient(model), gradient(plain), rtol=1e-4, atol=1e-7)


def test_log_has_the_clean_pixel_loss_and_each_critic_after_it():
    torch.manual_seed(1)
    model = build_model(
        options(critics=[GMSD, GMSD | {"name": "late", "start": 2}], pixel_opt={"type": "L1Loss", "loss_weight": 2.0})
    )
    data = batch()
    with torch.no_grad():
        output = model.net_g(data["lq"])
        pixel, score = 2 * (output - data["gt"]).abs().mean(), create_critic("gmsd")(output, data["gt"]).mean()
    row = step(model, 1)
    assert list(row) == ["l_pix", "l_gmsd", "l_late"]
    assert row["l_pix"] == float(pixel)
    assert row["l_gmsd"] == pytest.approx(0.3 * float(score), rel=1e-6)
    assert row["l_late"] == 0.0
    assert step(model, 2)["l_late"] > 0


@pytest.mark.parametrize("name", ["SRGANModel", "ESRGANModel"])
def test_gan_models_log_critics_when_the_generator_learns(name):
    model = build_model(options(name, critics=[GMSD], net_d_iters=2, net_d_init_iters=2))
    rows = {number: step(model, number) for number in range(1, 7)}
    with_generator = [number for number, row in rows.items() if "l_g_pix" in row]
    assert with_generator == [4, 6]
    assert [number for number, row in rows.items() if "l_gmsd" in row] == with_generator
    assert [key for key in rows[4] if key.startswith("l_g")] == ["l_g_pix", "l_gmsd", "l_g_gan"]
    assert all({"l_d_real", "l_d_fake"} <= set(row) for row in rows.values())


def test_artefacts_are_weighed_beside_what_the_average_restores():
    torch.manual_seed(1)
    model = build_model(options(critics=[GMSD], ema_decay=0.9, critic_opt={"artefacts": 20.0}))
    step(model, 1)
    data = batch()
    with torch.no_grad():
        output, steady = model.net_g(data["lq"]), model.net_g_ema(data["lq"])
        weights = artefact_weights(output, data["gt"], steady)
    row = step(model, 2)
    assert list(row) == ["l_pix", "l_gmsd", "l_artefacts"]
    assert row["l_artefacts"] == pytest.approx(20 * float((weights * (output - data["gt"]).abs()).mean()), rel=1e-4)
    assert row["l_pix"] == pytest.approx(float((output - data["gt"]).abs().mean()), rel=1e-6)


@pytest.mark.parametrize(
    ("train", "sentence"),
    [
        ({"critic_opt": {"artefacts": 1.0}}, "artefacts compares with the averaged weights: set train.ema_decay"),
        ({"critic_opt": {"artefacts": -1}, "ema_decay": 0.9}, "artefacts must be a number of at least 0, got -1"),
    ],
)
def test_artefacts_need_an_average(train, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build_model(options(critics=[GMSD], **train))


def test_critics_alone_need_no_pixel_loss():
    opt = options(critics=[GMSD])
    del opt["train"]["pixel_opt"]
    model = build_model(opt)
    before = [p.detach().clone() for p in model.net_g.parameters()]
    assert list(step(model, 1)) == ["l_gmsd"]
    assert any((p != q).any() for p, q in zip(model.net_g.parameters(), before, strict=True))


def test_a_model_without_critics_is_left_alone():
    model = build_model(options())
    assert type(model.cri_pix) is LOSS_REGISTRY.get("L1Loss")
    assert list(step(model, 1)) == ["l_pix"]
    model = build_model(options(critics=None, critic_opt={"grad": "fused"}))  # switched off with ~
    assert list(step(model, 1)) == ["l_pix"]


def test_clips_are_judged_frame_by_frame():
    @MODEL_REGISTRY.register()
    class ClipModel(MODEL_REGISTRY.get("SRModel")):
        def feed_data(self, data):
            super().feed_data(data)
            self.clip = self.gt.view(2, 2, *self.gt.shape[1:])

        def optimize_parameters(self, current_iter):
            self.optimizer_g.zero_grad()
            output = self.net_g(self.lq)
            self.output = output.view(2, 2, *output.shape[1:])
            loss = self.cri_pix(self.output, self.clip)
            loss.backward()
            self.log_dict = self.reduce_loss_dict({"l_pix": loss})

    try:
        model = build_model(options("ClipModel", critics=[GMSD]))
        data = batch(samples=4)
        with torch.no_grad():
            score = create_critic("gmsd")(model.net_g(data["lq"]), data["gt"]).mean()
        assert step(model, 1, samples=4)["l_gmsd"] == pytest.approx(0.3 * float(score), rel=1e-6)
    finally:
        del MODEL_REGISTRY._obj_map["ClipModel"]


def test_basicsrs_video_model_trains_with_critics_and_flicker():
    """VideoRecurrentModel with BasicVSR, as its options file has it, with a line of critics."""
    opt = options("VideoRecurrentModel", critics=[GMSD], critic_opt={"temporal": 2.0})
    opt["network_g"] = {"type": "BasicVSR", "num_feat": 4, "num_block": 1, "spynet_path": None}
    opt["scale"] = 4
    opt["train"] |= {"fix_flow": 1, "flow_lr_mul": 0.125, "pixel_opt": {"type": "CharbonnierLoss", "loss_weight": 1.0}}
    model = build_model(opt)
    lq = torch.rand(1, 3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    gt = F.interpolate(lq[0], scale_factor=4, mode="bicubic").clamp(0, 1)[None]
    with torch.no_grad():
        output = model.net_g(lq)
    before = [p.detach().clone() for p in model.net_g.parameters()]
    model.feed_data({"lq": lq, "gt": gt})
    model.optimize_parameters(2)
    row = model.get_current_log()
    assert list(row) == ["l_pix", "l_gmsd", "l_temporal"]
    score = create_critic("gmsd").score(output.flatten(0, 1), gt.flatten(0, 1)).mean()
    assert row["l_gmsd"] == pytest.approx(0.3 * float(score), rel=1e-5)
    assert row["l_temporal"] == pytest.approx(2 * float((output - gt).diff(dim=1).abs().mean()), rel=1e-5)
    assert any(not torch.equal(a, b) for a, b in zip(before, model.net_g.parameters(), strict=True))


def test_a_model_that_adds_up_several_outputs_logs_the_sums():
    class Twice(MODEL_REGISTRY.get("SRModel")):
        def optimize_parameters(self, current_iter):
            self.output = self.net_g(self.lq)
            loss = self.cri_pix(self.output, self.gt) + self.cri_pix(self.output.flip(-1), self.gt.flip(-1))
            self.log_dict = self.reduce_loss_dict({"l_first": self.gt.mean(), "l_pix": loss})

    torch.manual_seed(1)
    row = step(with_critics(Twice)(options(critics=[GMSD])), 1)
    torch.manual_seed(1)
    once = step(build_model(options(critics=[GMSD])), 1)
    assert list(row) == ["l_first", "l_pix", "l_gmsd"]
    assert row["l_pix"] == pytest.approx(2 * once["l_pix"], rel=1e-5)
    assert row["l_gmsd"] == pytest.approx(2 * once["l_gmsd"], rel=1e-5)


def test_a_model_that_ignores_its_pixel_criterion_is_stopped():
    class Ignores(MODEL_REGISTRY.get("SRModel")):
        def optimize_parameters(self, current_iter):
            self.log_dict = self.reduce_loss_dict({"l_other": self.gt.mean()})

    model = with_critics(Ignores)(options(critics=[GMSD]))
    step(model, 1)
    with pytest.raises(ConfigError, match="never evaluates cri_pix"):
        step(model, 2)


def test_a_model_without_pixel_slot_is_refused():
    class NoSlot(MODEL_REGISTRY.get("SRModel")):
        def init_training_settings(self):
            super().init_training_settings()
            del self.cri_pix

    with pytest.raises(ConfigError, match="NoSlot has no pixel loss"):
        with_critics(NoSlot)(options(critics=[GMSD]))


def test_a_critic_that_sends_no_gradient_is_an_error_at_start_up():
    with pytest.raises(GradientError, match="'fake-deaf'"):
        build_model(options(critics=[GMSD, {"critic": "fake-deaf", "weight": 1.0, "start": 9000}]))


def test_a_hinge_passes_the_gradient_check_in_either_direction():
    for critic in ("fake-alone", "gmsd"):
        build_model(options(critics=[{"critic": critic, "weight": 1.0, "shape": "hinge"}]))


def test_a_term_that_turns_nan_is_skipped_named_and_counted(monkeypatch, log):
    model = build_model(options(critics=[GMSD, {"critic": "fake-brightness", "weight": 1.0}]))
    assert step(model, 1)["l_fake-brightness"] >= 0
    monkeypatch.setattr(Brightness, "limit", -1e9)
    rows = [step(model, number) for number in range(2, 7)]
    assert all(row["l_fake-brightness"] != row["l_fake-brightness"] for row in rows)  # the log shows nan
    assert all(row["l_gmsd"] > 0 and row["l_pix"] > 0 for row in rows)
    assert all(torch.isfinite(p).all() for p in model.net_g.parameters())
    warned = [line for line in log if "'fake-brightness' is not finite" in line]
    assert [line.split("(time ")[1] for line in warned] == ["1)", "2)", "4)"]  # of five
    assert model.cri_pix.critics.report["fake-brightness"]["skipped"] == 5


def test_a_term_that_turns_nan_stops_the_run_if_so_configured(monkeypatch):
    model = build_model(
        options(critics=[{"critic": "fake-brightness", "weight": 1.0}], critic_opt={"on_nonfinite": "raise"})
    )
    monkeypatch.setattr(Brightness, "limit", -1e9)
    with pytest.raises(NonFiniteLoss, match="fake-brightness"):
        step(model, 1)


def test_schedules_follow_the_iteration_also_after_resuming():
    ramp = [GMSD | {"start": 10, "ramp": 4}]
    row = step(build_model(options(critics=ramp, critic_opt={"log": "score"})), 11)
    assert row["l_gmsd"] == pytest.approx(0.3 * 2 / 4 * row["score_gmsd"], rel=1e-6)
    opt = options(pixel_opt={"type": "CriticLoss", "critics": ramp})
    assert step(build_model(opt), 9)["l_pix"] == 0.0
    assert step(build_model(opt), 11)["l_pix"] == pytest.approx(row["l_gmsd"], rel=0.2)


def test_shares_of_the_gradient_are_logged_on_request():
    model = build_model(options(critics=[GMSD, LPIPS], critic_opt={"log": ["share"], "share_every": 2}))
    assert "share_gmsd" not in step(model, 1)
    row = step(model, 2)
    assert row["share_gmsd"] + row["share_lpips-squeeze"] == pytest.approx(1.0)


def test_critics_are_in_no_checkpoint_and_no_optimizer():
    model = build_model(options(critics=[LPIPS]))
    assert not list(model.cri_pix.parameters())
    trained = {id(p) for group in model.optimizer_g.param_groups for p in group["params"]}
    assert trained == {id(p) for p in model.net_g.parameters()}


def test_registry_lines_fill_either_slot():
    lines = {
        "pixel_opt": {"type": "critic_gmsd", "loss_weight": 0.3},
        "perceptual_opt": {"type": "CriticPerceptualLoss", "loss_weight": 2.0, "critics": [LPIPS]},
    }
    torch.manual_seed(1)
    model = build_model(options(**lines))
    data = batch()
    with torch.no_grad():
        output = model.net_g(data["lq"])
    reference = CriticLoss([GMSD, LPIPS | {"weight": 1.0}])
    reference(output, data["gt"])
    row = step(model, 1)
    assert list(row) == ["l_pix", "l_percep"]
    assert row["l_pix"] == pytest.approx(reference.report["gmsd"]["weighted"], rel=1e-5)
    assert row["l_percep"] == pytest.approx(reference.report["lpips-squeeze"]["weighted"], rel=1e-5)


def test_a_loss_type_in_the_wrong_slot_is_named():
    lines = {
        "pixel_opt": {"type": "CriticPerceptualLoss", "critics": [GMSD]},
        "perceptual_opt": {"type": "critic_gmsd"},
    }
    with pytest.raises(ConfigError) as caught:
        build_model(options(**lines))
    assert len(caught.value.problems) == 2
    assert "use CriticPerceptualLoss" in str(caught.value)


def test_a_registry_line_is_proven_at_start_up():
    with pytest.raises(GradientError, match="fake-deaf"):
        build_model(options(pixel_opt={"type": "CriticLoss", "critics": {"fake-deaf": 1.0}}))


def test_a_label_that_the_model_logs_itself_is_refused():
    class Own(MODEL_REGISTRY.get("SRModel")):
        def reduce_loss_dict(self, loss_dict):
            return super().reduce_loss_dict(loss_dict)

        def optimize_parameters(self, current_iter):
            loss = self.cri_pix(self.net_g(self.lq), self.gt)
            self.log_dict = self.reduce_loss_dict({"l_pix": loss, "l_gmsd": loss * 2})

    with pytest.raises(ConfigError, match="logs l_gmsd already"):
        step(with_critics(Own)(options(critics=[GMSD])), 1)


def test_importing_twice_registers_once():
    import importlib

    get = MODEL_REGISTRY.get
    perceptloss.integrations.basicsr.install()
    importlib.reload(perceptloss.integrations.basicsr)
    assert MODEL_REGISTRY.get is get
    assert MODEL_REGISTRY.get("SRModel") is MODEL_REGISTRY.get("SRModel")


def test_a_monitor_is_logged_by_its_score_and_trains_nothing(log):
    torch.manual_seed(1)
    plain = build_model(options(critics=[GMSD]))
    torch.manual_seed(1)
    watched = build_model(options(critics=[GMSD, LPIPS | {"weight": 0}], critic_opt={"log": ["share"]}))
    assert step(plain, 1)["l_gmsd"] == step(watched, 1)["l_gmsd"]
    entries = watched.get_current_log()
    assert "l_lpips-squeeze" not in entries
    assert entries["score_lpips-squeeze"] > 0
    assert torch.equal(gradient(plain), gradient(watched))
    said = next(line for line in log if "lpips-squeeze" in line)
    assert "score_lpips-squeeze: only watched" in said
    assert "share_*: measured at each iteration that is a multiple of 100" in said


JOINT = {"critic": "patch", "weights": None, "weight": 0.1, "options": {"width": 8}, "joint": {"replay": 0.5}}


def test_a_joint_critic_learns_and_goes_on_to_the_bit(tmp_path):
    torch.manual_seed(1)
    whole = build_model(options("CriticSRModel", critics=[JOINT, {"critic": "gmsd", "share": 0.2}]))
    whole.opt["path"]["training_states"] = str(tmp_path)
    critic = whole._guest.slot.critics.terms[0].critic
    before = [p.clone() for p in critic.parameters()]
    for number in (1, 2):
        log = step(whole, number)
    assert log["l_patch_joint_rank"] > 0
    assert any(not torch.equal(a, b) for a, b in zip(before, critic.parameters(), strict=True))
    assert all(p.grad is None for p in critic.parameters())
    assert not any("patch" in name for name in whole.net_g.state_dict())
    whole.save_training_state(0, 2)
    weights = {name: tensor.clone() for name, tensor in whole.net_g.state_dict().items()}
    step(whole, 3)

    resumed = build_model(options("CriticSRModel", critics=[JOINT, {"critic": "gmsd", "share": 0.2}]))
    resumed.opt["path"]["training_states"] = str(tmp_path)
    resumed.net_g.load_state_dict(weights)
    resumed.resume_training(torch.load(tmp_path / "2.state", weights_only=True))
    step(resumed, 3)
    ours, theirs = (model._guest.slot.critics.terms[0].critic.state_dict() for model in (resumed, whole))
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())
    assert all(torch.equal(a, b) for a, b in zip(resumed.net_g.parameters(), whole.net_g.parameters(), strict=True))

    (tmp_path / "2.critics0").unlink()
    with pytest.raises(ConfigError, match=r"2\.critics0 is missing"):
        resumed.resume_training(torch.load(tmp_path / "2.state", weights_only=True))


def labelled(folder):
    """Six pictures with opinions, as an entry of `critic_opt.anchors`."""
    rows = ["image,mos"]
    for i in range(6):
        noise = np.random.default_rng(i).integers(0, 40 * i + 1, (40, 48, 3))
        Image.fromarray((100 + noise // 2).astype(np.uint8)).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{6 - i}")
    (folder / "scores.csv").write_text("\n".join(rows))
    given = {"kind": "opinions", "name": "people", "root": str(folder / "scores.csv"), "look_alikes": "allow"}
    return {**given, "crops": [32], "hold_out": 0.5, "contents": 2}


def test_a_joint_critic_is_given_labelled_images(tmp_path):
    opt = options("CriticSRModel", critics=[JOINT], critic_opt={"anchors": [labelled(tmp_path)]})
    model = build_model(opt)
    log = step(model, 1)
    assert log["l_patch_joint_anchor people"] > 0
    assert model._guest.slot.critics.learners["patch"].heads.keys() == {"people"}


def test_labelled_images_come_in_the_range_of_the_others(tmp_path):
    asked = {"anchors": [labelled(tmp_path)]}
    usual, signed = (
        read_plan(options("CriticSRModel", critics=[JOINT], critic_opt=asked | more)).anchors
        for more in ({}, {"input_range": [-1, 1]})
    )
    torch.testing.assert_close(signed.at(1)["people"][0], usual.at(1)["people"][0] * 2 - 1)
    torch.testing.assert_close(signed.held["people"][0], usual.held["people"][0])


def test_a_joint_critic_beside_a_discriminator():
    model = build_model(options("CriticSRGANModel", critics=[JOINT]))
    log = step(model, 1)
    assert log["l_patch_joint_rank"] > 0
    assert log["l_d_real"] > 0


class Loader(list):
    """A validation set that gives the same two images each time."""

    def __init__(self, name="held-out"):
        data = batch(seed=9)
        super().__init__(
            {"lq": data["lq"][i, None], "gt": data["gt"][i, None], "lq_path": [f"{i}.png"]} for i in (0, 1)
        )
        self.dataset = type("Dataset", (), {"opt": {"name": name}})


def with_budget():
    opt = options(
        "CriticSRModel",
        critics=[{"critic": "gmsd", "share": 0.9, "start": 2}],
        critic_opt={"budget": {"psnr": -1e-4}},
        total_iter=6,
        ema_decay=0,
    )
    opt["datasets"] |= {"val": {"name": "held-out"}, "val_2": {"name": "other"}}
    opt["val"] = {"val_freq": 2, "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 2}}}
    opt["path"]["training_states"] = "nowhere"
    return opt


def validate(model, number, name="held-out"):
    model.validation(Loader(name), number, None, False)
    return model.metric_results["psnr"]


def test_a_budget_follows_the_validation_of_the_first_set(tmp_path, log):
    torch.manual_seed(1)
    model = build_model(with_budget())
    model.opt["path"]["training_states"] = str(tmp_path)
    budget = model.cri_pix.critics.budget
    step(model, 1)
    validate(model, 1)
    step(model, 2)
    start = validate(model, 2)  # the last one before the critics do anything
    assert budget.start == {"psnr": start}
    assert validate(model, 2, "other") == start
    step(model, 3)
    model.save_training_state(0, 3)
    with torch.no_grad():
        model.net_g.conv_last.bias.add_(0.2)
    spent = validate(model, 3)
    assert budget.spent == pytest.approx((start - spent) / 1e-4)
    assert budget.factor == pytest.approx(0.5, abs=0.01)  # the most that one measurement takes away
    assert budget.must_project
    assert any("factor of their weights 0.49" in line and f"(start {start:.4f})" in line for line in log)

    resumed = build_model(with_budget())
    resumed.opt["path"]["training_states"] = str(tmp_path)
    resumed.resume_training(torch.load(tmp_path / "3.state", weights_only=True))
    assert resumed.cri_pix.critics.budget.state() == budget.state()  # with the validation after the save
    assert not any("at the end" in line for line in log)
    validate(model, 7)
    assert any("% of their budget at the end: take an earlier checkpoint" in line for line in log)


def test_less_budget_makes_smaller_weights():
    torch.manual_seed(1)
    model = build_model(with_budget())
    step(model, 1)
    validate(model, 1)
    full = step(model, 3)["l_gmsd"]
    model.cri_pix.critics.budget.factor = 0.25
    assert step(model, 3)["l_gmsd"] == pytest.approx(0.25 * full, rel=0.2)


def test_a_model_without_means_of_its_metrics_cannot_hold_a_budget():
    model = build_model(with_budget())
    model.nondist_validation = lambda *_: None
    with pytest.raises(ConfigError, match="keeps no mean of 'psnr' in metric_results"):
        model.validation(Loader(), 2, None, False)


def test_what_shares_are_relative_to_is_said_at_the_start(log):
    pixel = {"type": "L1Loss", "loss_weight": 0.01, "reduction": "mean"}
    build_model(options(critics=[JOINT, {"critic": "gmsd", "share": 0.2}], pixel_opt=pixel))
    (said,) = (line for line in log if "Critics beside" in line)
    assert "l_patch: weight 0.1, learning, softplus of patch" in said
    assert "l_gmsd: share 0.2, deficit of" in said or "l_gmsd: share 0.2, distance of" in said
    assert "shares are those of the gradient beside train.pixel_opt, an L1 loss of weight 0.01" in said


def test_a_share_is_kept_beside_the_pixel_loss_of_the_config():
    pixel = {"type": "L1Loss", "loss_weight": 0.01, "reduction": "mean"}
    torch.manual_seed(1)
    model = build_model(options(critics=[{"critic": "gmsd", "share": 0.5}], pixel_opt=pixel))
    data = batch()
    output = model.net_g(data["lq"]).detach().requires_grad_()
    l1 = 0.01 * (output - data["gt"]).abs().mean()
    (of_pixel,) = torch.autograd.grad(l1, output)
    (of_critic,) = torch.autograd.grad(
        model.cri_pix(output, data["gt"]) - model.cri_pix.pixel(output, data["gt"]), output
    )
    torch.testing.assert_close(of_critic.norm(), of_pixel.norm(), rtol=1e-2, atol=0)


def with_scores(tmp_path, **val):
    metrics = {
        "whole": {"type": "calculate_critic", "critic": "gmsd"},
        "inner": {"type": "calculate_critic_gmsd", "crop_border": 2},
        "fake": {"type": "calculate_critic", "critic": "fake-brightness"},
    }
    opt = options(pixel_opt={"type": "critic_gmsd", "loss_weight": 1.0}, total_iter=6, ema_decay=0)
    opt["path"] |= {"experiments_root": str(tmp_path), "results_root": str(tmp_path)}
    return {**opt, "name": "tiny", "val": {"metrics": metrics, "scores": True, **val}}


def test_scores_of_a_validation_are_kept_in_a_file(tmp_path, monkeypatch):
    model = build_model(with_scores(tmp_path))
    loader = Loader()
    for n, folder in enumerate(("b", "a")):
        loader[n] |= {"folder": [folder], "gt_path": [f"/somewhere/{n}.gt.png"]}
    model.validation(loader, 7, None, False)  # one more than the run has
    got = load_results(tmp_path / "scores" / "held-out" / "6.json")
    assert [column.label for column in got.critics] == ["gmsd@whole", "gmsd@inner", "fake-brightness"]
    assert [column.role for column in got.critics] == ["train", "train", "judge"]
    assert "|crop:2|" in got.critics[1].signature
    assert (got.systems, got.provenance["run"]) == (("tiny",), {"step": 6})
    assert [image.key for image in got.images] == ["a/1.gt", "b/0.gt"]
    means = [cell.mean for cell in got.summary().standings[0].cells]
    assert means == pytest.approx([model.metric_results[label] for label in ("whole", "inner", "fake")])
    assert got.values[0][1][0] != got.values[0][1][1]
    monkeypatch.setattr(Brightness, "limit", 0)
    model.validation(Loader("dark"), 6, None, False)
    lost = load_results(tmp_path / "scores" / "dark" / "6.json")
    assert lost.has_gaps and {flag.kind for flag in lost.flags} == {"not-finite"}


def test_scores_of_a_test_are_kept_under_its_name(tmp_path):
    opt = with_scores(tmp_path, save_img=False)
    model = build_model({**opt, "is_train": False})
    model.validation(Loader("Set5"), "tiny", None, False)
    got = load_results(tmp_path / "scores" / "Set5" / "tiny.json")
    assert {column.role for column in got.critics} == {None} and "run" not in got.provenance


def test_what_cannot_keep_scores_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"val\.scores must be true or false, got 'yes'"):
        build_model(with_scores(tmp_path, scores="yes"))
    with pytest.raises(ConfigError, match="but there is none: add a calculate_critic"):
        build_model(with_scores(tmp_path, metrics={"psnr": {"type": "calculate_psnr", "crop_border": 2}}))

    class Skips(MODEL_REGISTRY.get("SRModel")):
        def nondist_validation(self, dataloader, current_iter, tb_logger, save_img):
            for data in dataloader:
                self.feed_data(data)

    with pytest.raises(ConfigError, match="Skips does not ask every metric once"):
        with_critics(Skips)(with_scores(tmp_path)).validation(Loader(), 1, None, False)
    assert not (tmp_path / "scores").exists()


def test_a_critic_of_other_pictures_is_told_of_once_in_the_log(log, monkeypatch):
    monkeypatch.setattr("perceptloss.loss.domains._told", set())
    critics = [{"critic": "uiqm", "weight": 0.1}]
    for _ in range(2):
        build_model(options(critics=critics))
    assert sum("'uiqm' was made for underwater pictures" in line for line in log) == 1
    log.clear()
    monkeypatch.setattr("perceptloss.loss.domains._told", set())
    build_model(options(critics=critics, critic_opt={"domain": "underwater"}))
    assert not any("was made for" in line for line in log)
