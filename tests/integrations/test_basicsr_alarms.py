"""Alarms over the validations of BasicSR: a hole trips them, honest outputs do not, and a stop loses nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import bsr  # skips where BasicSR is missing
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from basicsr.models import build_model
from fakes import _card, options
from images import photographs
from PIL import Image

from perceptloss import registry
from perceptloss.critic import Critic, Entry
from perceptloss.errors import ConfigError, DeceivedCritics
from perceptloss.integrations.basicsr import alarm_options
from perceptloss.integrations.basicsr.options import read_plan

pytest.importorskip("kornia")

EVERY, END = 3, 9
GMSD = {"critic": "gmsd", "weight": 0.3}


class Vivid(Critic):
    """Takes colour for quality, without an end."""

    def score(self, x, y=None):
        return x.std(1).mean((1, 2))


@pytest.fixture(autouse=True)
def _hole(monkeypatch):
    for name, multiple in (("fake-vivid", 1), ("fake-even", 8)):
        card = _card(name, kind="nr", better="higher", identity=None, shape="deficit", multiple_of=multiple)
        monkeypatch.setitem(registry._registered, name, Entry(card, Vivid))


class Loader(list):
    """A validation set of three photographs, at half their side."""

    def __init__(self, name="held-out", gt=None):
        gt = photographs(96) if gt is None else gt
        lq = F.interpolate(gt, scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)
        super().__init__({"lq": lq[i, None], "gt": gt[i, None], "lq_path": [f"{i}.png"]} for i in range(len(gt)))
        self.dataset = type("Dataset", (), {"opt": {"name": name}})
        self.batch = {"lq": lq, "gt": gt}


def watched(folder, weight=3.0, reaction="anneal", start=0, critics=(), **val):
    """Options of a training that a critic with a hole takes part in, and that alarms look at."""
    hole = {"critic": "fake-vivid", "weight": weight, "start": start}
    opt = options(critics=[hole, *critics], total_iter=END, ema_decay=0)
    opt["train"]["optim_g"]["lr"] = 2e-3
    opt["datasets"] |= {"val": {"name": "held-out"}, "val_2": {"name": "other"}}
    opt["path"]["training_states"] = str(folder)
    metrics = {
        "psnr": {"type": "calculate_psnr", "crop_border": 2},
        "haarpsi": {"type": "calculate_critic", "critic": "haarpsi"},
        "vivid": {"type": "calculate_critic", "critic": "fake-vivid"},
    }
    opt["val"] = {"val_freq": EVERY, "alarms": reaction, "metrics": metrics, **val}
    return opt


def build(*args, **kwargs):
    torch.manual_seed(1)
    return build_model(watched(*args, **kwargs))


def train(model, first=1, last=END, saves=False):
    """Iterations as BasicSR makes them: it saves before it validates."""
    loader = Loader()
    for number in range(first, last + 1):
        model.feed_data(loader.batch)
        model.optimize_parameters(number)
        if number % EVERY == 0:
            if saves:
                model.save_training_state(0, number)
            validate(model, number)


def validate(model, number, **kwargs):
    model.validation(Loader(**kwargs), number, None, False)


def watch_of(model):
    return model._guest.plan.alarms.watch


def test_a_hole_trips_alarms_that_halve_the_weights_of_the_critics(tmp_path, log):
    model = build(tmp_path)
    train(model)
    assert model.cri_pix.critics.factor == 0.125  # one half for each validation
    rung = [line for line in log if line.startswith("Alarm at iteration")]
    assert len(rung) == len(set(rung)) == len(watch_of(model).rung)
    for name in ("above the ground truth, fake-vivid", "content, saturation", "content, chroma drift"):
        assert sum(name in line for line in rung) == 1
    assert any("weights are multiplied by 0.125" in line for line in log)
    model.cri_pix.critics.factor = 1.0
    full = model.cri_pix.critics(*[photographs(96)] * 2, step=1)
    model.cri_pix.critics.factor = 0.125
    torch.testing.assert_close(model.cri_pix.critics(*[photographs(96)] * 2, step=1), full / 8)


def test_an_honest_run_trips_none_and_is_summed_up_once(tmp_path, log):
    model = build(tmp_path, weight=1e-3, reaction="stop")
    train(model)
    validate(model, END + 1)  # as BasicSR does after its last iteration
    assert [validation.step for validation in watch_of(model).history.validations] == [3, 6, 9]
    assert model.cri_pix.critics.factor == 1
    (summary,) = (line for line in log if line.startswith("Honesty:"))
    assert "no alarm at the end (3 validations, the last at step 9)" in summary
    assert not any(line.startswith("Alarm at") for line in log)


def test_a_last_validation_off_the_beat_counts_as_that_of_the_last_iteration(tmp_path, log):
    model = build(tmp_path, weight=1e-3)
    validate(model, END + 1)
    assert [validation.step for validation in watch_of(model).history.validations] == [END]
    assert sum(line.startswith("Honesty:") for line in log) == 1


def test_stop_stops_and_keeps_what_was_seen(tmp_path):
    model = build(tmp_path, reaction="stop")
    with pytest.raises(DeceivedCritics, match="above the ground truth, fake-vivid"):
        train(model, saves=True)
    kept = json.loads((tmp_path / "3.alarms.json").read_text())
    assert [validation["step"] for validation in kept["validations"]] == [3]


def test_warn_and_freeze_do_what_they_say(tmp_path):
    model = build(tmp_path, reaction=True)
    train(model, last=EVERY)
    assert watch_of(model).alarms and model.cri_pix.critics.factor == 1
    model = build(tmp_path, reaction="freeze")
    train(model, last=EVERY)
    assert model.cri_pix.critics.factor == 0
    train(model, first=4, last=4)
    assert model.get_current_log()["l_fake-vivid"] == 0


def test_what_is_seen_before_critics_start_is_told_and_not_reacted_to(tmp_path, log):
    opt = watched(tmp_path, reaction="stop")
    opt["train"]["critics"] = [GMSD | {"start": 6}]
    red = torch.tensor([0.1, 0.0, 0.0])
    model = build_model(opt)
    for number in (3, 6, 9):  # at the last one nothing is worse than it was
        with torch.no_grad():
            model.net_g.conv_last.bias.add_(red if number < 9 else 0)
        validate(model, number)
    assert any("Alarm at iteration 3: content, chroma drift" in line for line in log)
    assert [alarm.from_start for alarm in watch_of(model).alarms if alarm.about == "chroma drift"] == [True]
    model = build_model(opt)
    validate(model, 6)
    with torch.no_grad():
        model.net_g.conv_last.bias.add_(red)
    with pytest.raises(DeceivedCritics, match="chroma drift"):
        validate(model, 9)


def test_a_resumed_run_goes_on_with_what_was_seen(tmp_path, log):
    whole = build(tmp_path)
    train(whole, last=6, saves=True)
    resumed = build(tmp_path)
    resumed.net_g.load_state_dict(whole.net_g.state_dict())
    state = torch.load(tmp_path / "6.state", weights_only=True)
    resumed.resume_training(state)
    assert watch_of(resumed).state() == watch_of(whole).state()  # with the validation after the save
    assert resumed.cri_pix.critics.factor == whole.cri_pix.critics.factor == 0.25
    log.clear()
    for model in (whole, resumed):
        train(model, first=7)
    assert watch_of(resumed).state() == watch_of(whole).state()
    assert resumed.cri_pix.critics.factor == 0.125
    (tmp_path / "6.alarms.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"(?s)6\.alarms\.json.*damaged"):
        build(tmp_path).resume_training(state)
    (tmp_path / "6.alarms.json").unlink()
    build(tmp_path).resume_training(state)
    assert "6.alarms.json is missing: alarms begin anew" in log[-1]


def test_only_the_first_set_is_looked_at_and_its_metrics_judge(tmp_path, log):
    model = build(tmp_path, critics=[GMSD | {"weight": 0}])
    validate(model, 3, name="other")
    assert watch_of(model).history.validations == []
    validate(model, 3)
    (seen,) = watch_of(model).history.validations
    assert len(seen.sights) == 3
    assert seen.means["fake-vivid"] == pytest.approx(model.metric_results["vivid"], rel=1e-3)
    assert seen.means["val.metrics.haarpsi"] == model.metric_results["haarpsi"]
    assert set(seen.means) == {"fake-vivid", "val.metrics.haarpsi", "val.metrics.psnr"}  # no monitor, nor the hole
    (said,) = (line for line in log if "Critics beside" in line)
    assert "alarms look at held-out, reaction anneal; judges: val.metrics.haarpsi" in said
    assert "val.metrics.vivid is no judge: judge 'fake-vivid' is trained on" in said


def test_a_critic_in_another_slot_is_no_judge(tmp_path):
    opt = watched(tmp_path)
    opt["train"]["pixel_opt"] = {"type": "critic_haarpsi", "loss_weight": 0.1}
    alarms = build_model(opt)._guest.plan.alarms
    assert alarms.judges == ["psnr"]
    assert set(alarms.watch.trained) == {"fake-vivid"}


def test_agreement_with_labels_is_watched(tmp_path):
    model = build(tmp_path)
    labels = torch.tensor([0.1, 0.5, 0.9])
    red = torch.tensor([1.0, 0.0, 0.0]).view(3, 1, 1) * labels.view(3, 1, 1, 1)
    model._guest.plan.alarms.held = {"people": (red.expand(3, 3, 32, 32), None, labels)}
    (hole,) = model.cri_pix.critics.critics
    model.cri_pix.critics.learners = {"fake-vivid": SimpleNamespace(critic=hole)}
    validate(model, 3)
    assert watch_of(model).history.validations[0].anchors == {"fake-vivid": pytest.approx(1.0)}
    model._guest.plan.alarms.held = {"people": (red.expand(3, 3, 32, 32), None, labels.flip(0))}
    validate(model, 6)
    assert "anchors" in {alarm.name for alarm in watch_of(model).alarms}


def test_no_more_than_some_images_are_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr("perceptloss.integrations.basicsr.alarms._MOST", 2)
    model = build(tmp_path)
    validate(model, 3)
    assert len(watch_of(model).history.validations[0].sights) == 2


def test_images_are_seen_as_critics_take_them(tmp_path):
    opt = watched(tmp_path, metrics={}, critics=[{"critic": "fake-even", "weight": 1.0}])
    opt["network_g"] |= {"num_in_ch": 1, "num_out_ch": 1}
    opt["train"]["critic_opt"] = {"grey": "replicate", "input_range": [-1, 1]}
    model = build_model(opt)
    loader = Loader(gt=photographs(100)[:, 1:2])
    for item in loader:
        item |= {"lq": item["lq"] * 2 - 1, "gt": item["gt"] * 2 - 1}
    seen = []
    sight = watch_of(model).sight
    watch_of(model).sight = lambda x, y: seen.append((x, y)) or sight(x, y)
    model.validation(loader, 3, None, False)
    x, y = seen[0]
    assert x.shape == y.shape == (3, 96, 96)
    torch.testing.assert_close(y, photographs(100)[0, 1:2, :96, :96].expand(3, -1, -1), atol=0.5 / 255 + 1e-6, rtol=0)
    assert x.min() >= 0 and x.max() <= 1


def test_stereo_pairs_are_seen_whole(tmp_path):
    opt = watched(tmp_path, metrics=None)
    opt["network_g"] = {"type": "NAFSSR", "up_scale": 2, "width": 8, "num_blks": 1}
    opt["train"] |= {"critics": [GMSD], "critic_opt": {"stereo": True}}
    opt["datasets"]["train"]["gt_size"] = 48
    model = build_model(opt)
    model.output = model.gt = model.lq = torch.cat([photographs(96)[:1]] * 2, 1)
    model.nondist_validation = lambda *_: model.get_current_visuals()
    validate(model, 3)
    (sight,) = watch_of(model).history.validations[0].sights
    assert sight.scores["gmsd"].output == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("output", "gt", "part"),
    [
        (None, None, "SRModel shows no images"),
        ((1, 3, 64, 64), None, "got (1, 3, 64, 64) and no ground truth"),
        ((1, 2, 3, 64, 64), (1, 2, 3, 64, 64), "need single images and their ground truth, got (1, 2, 3, 64, 64)"),
        ((1, 3, 64, 64), (2, 3, 32, 32), "ground truth of (2, 3, 32, 32)"),  # of the last batch, where a set has none
    ],
)
def test_what_cannot_be_compared_is_an_error(output, gt, part, tmp_path):
    model = build(tmp_path)
    given = {"lq": output, "output": output, "gt": gt}
    vars(model).update({key: torch.rand(shape) for key, shape in given.items() if shape})
    model.nondist_validation = lambda *_: output and model.get_current_visuals()
    with pytest.raises(ConfigError) as caught:
        validate(model, 3)
    assert part in str(caught.value)


def problems(opt):
    with pytest.raises(ConfigError) as caught:
        read_plan(opt)
    return "\n".join(caught.value.problems)


def test_what_is_wrong_is_named_with_the_rest(tmp_path):
    opt = watched(tmp_path, reaction="anneel", val_freq=None, critics=[{"critic": "gmsdd", "weight": 1.0}])
    opt["datasets"]["val"]["type"] = "SingleImageDataset"
    found = problems(opt)
    for part in (
        "must be true, false, or one of warn, stop, freeze, anneal, got 'anneel'; did you mean 'anneal'?",
        "give datasets.val and val.val_freq",
        "the first set (SingleImageDataset) has no ground truth",
        "did you mean 'gmsd'",
    ):
        assert part in found
    opt = watched(tmp_path)
    opt["datasets"]["val"]["type"] = "VideoRecurrentTestDataset"
    assert "has clips, not images" in problems(opt)
    assert "those of train.critics only watch" in problems(watched(tmp_path, weight=0))


def test_reactions_are_those_of_the_watch():
    from perceptloss.honesty.reactions import Reaction

    assert get_args(Reaction) == alarm_options._REACTIONS


def test_alarms_need_critics(tmp_path):
    opt = options()
    opt["val"] = {"alarms": "warn"}
    assert "there is no train.critics" in problems(opt)
    assert read_plan(watched(tmp_path) | {"train": {"critics": None}}) is None  # switched off with ~
    assert read_plan(watched(tmp_path, reaction=False)).alarms is None
    build_model(watched(tmp_path, metrics={}) | {"is_train": False})  # a test ignores them


def test_without_kornia_the_command_is_named(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("kornia", "perceptloss.honesty"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kornia", None)
    monkeypatch.setitem(sys.modules, "kornia.color", None)
    assert "pip install 'perceptloss[teach]'" in problems(watched(tmp_path))


@pytest.mark.thorough
def test_a_stop_stops_all_processes(tmp_path):
    photos = bsr.write_photographs(tmp_path)
    opt = bsr.shrunk("train_msrresnet_x4_joint.yml", photos)
    opt["train"]["critics"] = [GMSD]
    del opt["train"]["critic_opt"]
    opt["datasets"]["val"]["dataroot_lq"] = str(reddened(tmp_path / "red", photos["dataroot_lq"]))
    opt["val"]["alarms"] = "stop"
    done = bsr.launch(tmp_path, opt, processes=2)
    assert done.returncode != 0
    assert done.stderr.count("DeceivedCritics: stopped") == 2
    log = bsr.log_of(tmp_path, opt["name"])
    assert "Alarm at iteration 2: content, chroma drift" in log
    kept = tmp_path / "experiments" / opt["name"] / "training_states" / "2.alarms.json"
    assert len(json.loads(kept.read_text())["validations"]) == 1


def reddened(folder, source):
    """The pictures of a folder, redder."""
    folder.mkdir()
    for file in sorted(Path(source).iterdir()):
        pixels = np.asarray(Image.open(file)).astype(int) + np.array([60, 0, 0])
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / file.name)
    return folder
