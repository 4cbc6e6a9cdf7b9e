"""BasicSR trains, validates, saves and resumes with critics: the shipped recipes, end to end."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from bsr import FLAKY_EXIT, launch, log_of, rows, scalars, shrunk, write_photographs

from perceptloss.compare import Pairing, Settings, load_results, score
from perceptloss.compare.report.timeline import timeline

MSR, GAN, LINES = "train_msrresnet_x4_critics.yml", "train_esrgan_x4_critics.yml", "train_msrresnet_x4_registry.yml"
JOINT = "train_msrresnet_x4_joint.yml"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return write_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, photographs):
    """Folder and options of four iterations of the main recipe."""
    folder = tmp_path_factory.mktemp("trained")
    opt = shrunk(MSR, photographs)
    opt["val"] |= {"scores": True, "save_img": True}
    opt["val"]["metrics"]["gmsd"] = {"type": "calculate_critic_gmsd", "crop_border": 4}
    done = launch(folder, opt)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, opt


def test_every_critic_is_logged_beside_a_pixel_loss(trained):
    folder, opt = trained
    steps = rows(log_of(folder, opt["name"]))
    assert sorted(steps) == [1, 2, 3, 4]
    for row in steps.values():
        assert [key for key in row if key.startswith("l_")] == ["l_pix", "l_lpips-vgg", "l_gmsd"]
    assert steps[1]["l_lpips-vgg"] == steps[1]["l_gmsd"] == 0.0  # they start at 2 with half their weight
    for label, weight in (("lpips-vgg", 0.1), ("gmsd", 0.2)):
        for step, part in ((2, 0.5), (3, 1.0), (4, 1.0)):
            assert steps[step][f"l_{label}"] == pytest.approx(part * weight * steps[step][f"score_{label}"], rel=1e-3)
            assert steps[step][f"l_{label}"] > 0


def test_tensorboard_has_a_curve_for_each(trained):
    folder, opt = trained
    curves, steps = scalars(folder, opt["name"]), rows(log_of(folder, opt["name"]))
    for key in ("l_pix", "l_lpips-vgg", "l_gmsd"):
        for step in (1, 2, 3, 4):
            assert curves[f"losses/{key}"][step] == pytest.approx(steps[step][key], rel=1e-3)
    for metric in ("psnr", "lpips", "dists"):
        assert set(curves[f"metrics/Set14/{metric}"]) >= {2, 4}  # and once more at the end


def test_validation_keeps_the_lowest_distance_as_best(trained):
    folder, opt = trained
    lpips, log = scalars(folder, opt["name"])["metrics/Set14/lpips"], log_of(folder, opt["name"])
    best = min(lpips, key=lambda step: (lpips[step], -step))
    assert f"Best: {lpips[best]:.4f} @ {best} iter" in log.split("# lpips:")[-1]


def test_validations_keep_the_scores_that_perceptloss_gives(trained, photographs):
    folder, opt = trained
    home = folder / "experiments" / opt["name"]
    files = sorted((home / "scores" / "Set14").iterdir())
    assert [file.name for file in files] == ["2.json", "4.json"]
    found = {str(file): load_results(file) for file in files}
    for file, results in zip(files, found.values(), strict=True):
        again = score(
            home / "visualization",
            photographs["dataroot_gt"],
            ["gmsd"],
            rules=Pairing(layout=f"basicsr:{file.stem}"),
            settings=Settings(crop_border=4),
        )
        column = [column.card["name"] for column in results.critics].index("gmsd")
        assert results.critics[column].signature == again.critics[0].signature
        assert [image.key for image in results.images] == [image.key for image in again.images]
        np.testing.assert_allclose(results.values[0][column], again.values[0][0], rtol=1e-4)
        assert {c.card["name"]: c.role for c in results.critics} == {
            "lpips-vgg": "train",
            "dists": "judge",
            "gmsd": "train",
        }
    course = timeline(found)
    assert (course.moments, course.unit, course.systems) == ((2, 4), "step", (opt["name"],))


def test_the_log_names_what_judges(trained):
    folder, opt = trained
    log = log_of(folder, opt["name"])
    assert "Critics beside cri_pix of SRModel, grad=fused" in log
    assert "l_lpips-vgg: weight 0.1, distance of lpips-vgg|weights:random" in log


def test_pixel_loss_is_the_one_of_a_run_without_critics(trained, photographs, tmp_path):
    folder, opt = trained
    plain = shrunk(MSR, photographs)
    for key in ("critics", "critic_opt"):
        del plain["train"][key]
    plain["train"]["total_iter"] = 3
    done = launch(tmp_path, plain)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [key for key in rows(log_of(tmp_path, plain["name"]))[1] if key.startswith("l_")] == ["l_pix"]
    ours, theirs = (scalars(place, opt["name"])["losses/l_pix"] for place in (folder, tmp_path))
    assert ours[1] == theirs[1]
    assert ours[2] == theirs[2]  # the critics weigh nothing before their start, and draw no random number
    assert ours[3] != theirs[3]  # from there on the network has followed them


def test_auto_resume_continues_where_the_run_stopped(trained, tmp_path):
    folder, opt = trained
    more = copy.deepcopy(opt)
    more["train"]["total_iter"] = 6
    done = launch(folder, more, "--auto_resume")
    assert done.returncode == 0, done.stderr[-3000:]
    log = log_of(folder, opt["name"])
    assert "Resuming training from epoch: 0, iter: 4." in log
    steps = rows(log)
    assert sorted(steps) == [5, 6]
    assert steps[5]["l_gmsd"] == pytest.approx(
        0.2 * steps[5]["score_gmsd"], rel=1e-3
    )  # the schedule knows the iteration
    home = folder / "experiments" / opt["name"]
    state = torch.load(home / "training_states" / "6.state", weights_only=True)
    assert state["iter"] == 6
    assert {int(slot["step"]) for slot in state["optimizers"][0]["state"].values()} == {6}
    kept = torch.load(home / "models" / "net_g_6.pth", weights_only=True)
    assert set(kept) == {"params", "params_ema"}
    assert not [key for key in kept["params"] if "critic" in key]


@pytest.mark.parametrize(
    ("recipe", "losses"), [(GAN, ["l_g_pix", "l_dists", "l_gmsd", "l_g_gan"]), (LINES, ["l_pix", "l_percep"])]
)
@pytest.mark.thorough
def test_other_recipes_train(recipe, losses, photographs, tmp_path):
    opt = shrunk(recipe, photographs)
    done = launch(tmp_path, opt)
    assert done.returncode == 0, done.stderr[-3000:]
    steps = rows(log_of(tmp_path, opt["name"]))
    assert sorted(steps) == [1, 2, 3, 4]
    assert [key for key in steps[4] if key.startswith("l_")][: len(losses)] == losses
    assert all(steps[4][key] > 0 for key in losses)
    assert (tmp_path / "experiments" / opt["name"] / "models" / "net_g_latest.pth").is_file()


def learned(folder, name, step, rank=0):
    """What the critics of a process had learned at an iteration."""
    file = folder / "experiments" / name / "training_states" / f"{step}.critics{rank}"
    return torch.load(file, weights_only=True)


@pytest.mark.thorough
def test_a_joint_critic_and_a_budget_go_through_a_stop(photographs, tmp_path):
    opt = shrunk(JOINT, photographs)
    done = launch(tmp_path, opt)
    assert done.returncode == 0, done.stderr[-3000:]
    log = log_of(tmp_path, opt["name"])
    assert "l_patch: share 0.2, learning, softplus of patch|weights:random" in log
    assert "shares are those of the gradient beside train.pixel_opt, an L1 loss of weight 1" in log
    psnr = scalars(tmp_path, opt["name"])["metrics/Set14/psnr"]
    before = learned(tmp_path, opt["name"], 4)
    assert before["budget"]["start"]["psnr"] == pytest.approx(psnr[2], abs=1e-4)
    assert before["budget"]["spent"] == pytest.approx((psnr[4] - psnr[2]) / -0.5, abs=1e-3)  # validated after the save
    assert set(before["shares"]) == {"lpips-vgg", "patch"}
    kept = tmp_path / "experiments" / opt["name"] / "training_states"
    assert [look["step"] for look in json.loads((kept / "4.alarms.json").read_text())["validations"]] == [2, 4]
    assert log.count("Honesty: ") == 1
    row = rows(log)[4]
    assert row["l_patch_joint_rank"] > 0
    assert row["share_patch"] + row["share_lpips-vgg"] == pytest.approx(1.0, abs=1e-3)

    opt["train"]["total_iter"] = 6
    done = launch(tmp_path, opt, "--auto_resume")
    assert done.returncode == 0, done.stderr[-3000:]
    after = learned(tmp_path, opt["name"], 6)
    assert [look["step"] for look in json.loads((kept / "6.alarms.json").read_text())["validations"]] == [2, 4, 6]
    assert after["budget"]["start"] == before["budget"]["start"]
    steps = [state["joint"]["patch"]["steps"] for state in (before, after)]
    assert steps[1] == steps[0] + 2
    models = tmp_path / "experiments" / opt["name"] / "models"
    assert not [key for key in torch.load(models / "net_g_6.pth", weights_only=True)["params"] if "patch" in key]


@pytest.mark.thorough
def test_two_processes_keep_one_critic_and_one_budget(photographs, tmp_path):
    opt = shrunk(JOINT, photographs)
    opt["val"]["scores"] = True
    for _ in range(2):
        done = launch(tmp_path, opt, processes=2)
        if done.returncode == 0 or FLAKY_EXIT not in done.stderr:
            break
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (learned(tmp_path, opt["name"], 4, rank) for rank in (0, 1))
    assert first["budget"] == second["budget"]
    assert first["budget"]["spent"] != 0
    (scores,) = (tmp_path / "experiments" / opt["name"] / "scores").iterdir()
    found = load_results(scores / "4.json")
    assert {column.role for column in found.critics} == {"judge"} and len(found.images) > 1 and not found.has_gaps
    assert first["shares"] == second["shares"]
    critics = [state["joint"]["patch"]["parameters"] for state in (first, second)]
    assert all(torch.equal(one, two) for one, two in zip(*critics, strict=True))


@pytest.mark.thorough
def test_two_processes_log_the_mean_of_both(photographs, tmp_path):
    opt = shrunk(MSR, photographs)
    opt["datasets"]["train"] |= {"num_worker_per_gpu": 1, "persistent_workers": True}  # workers are spawned here
    opt["train"]["total_iter"] = 3
    for _ in range(2):
        done = launch(tmp_path, opt, processes=2)
        results = [tmp_path / f"rank{rank}.json" for rank in (0, 1)]
        if done.returncode == 0 or not (FLAKY_EXIT in done.stderr and results[0].is_file()):
            break
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads(file.read_text()) for file in results)
    assert first["world_size"] == second["world_size"] == 2
    assert len(first["steps"]) == len(second["steps"]) == 3
    for one, two in zip(first["steps"], second["steps"], strict=True):
        assert list(one["own"]) == list(two["own"]) == ["l_pix", "l_lpips-vgg", "l_gmsd"]
        assert one["own"]["l_pix"] != two["own"]["l_pix"]  # each rank has its own images
        for key, value in one["own"].items():
            assert one["logged"][key] == pytest.approx((value + two["own"][key]) / 2, rel=1e-5)
    assert first["steps"][2]["logged"]["l_gmsd"] > 0
    assert "World size (gpu number): 2" in log_of(tmp_path, opt["name"])
