"""What is wrong with a config is said before training, all at once, with the nearest right name."""

from __future__ import annotations

import bsr
import pytest
from fakes import options, registered

import perceptloss.integrations.basicsr  # noqa: F401
from perceptloss.errors import ConfigError, UnknownCritic
from perceptloss.integrations.basicsr.metrics import prepare_metrics
from perceptloss.integrations.basicsr.options import read_plan
from perceptloss.loss.parsing import parse_terms
from perceptloss.registry import get_card

PATCH = {"critic": "patch", "weights": None, "weight": 0.1, "joint": True}
GMSD = {"critic": "gmsd", "weight": 0.3}


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    registered(monkeypatch)


def problems(opt):
    with pytest.raises(ConfigError) as caught:
        read_plan(opt)
    return caught.value.problems


def test_everything_wrong_is_listed_at_once():
    opt = options(
        critics=[
            {"critic": "gmsdd", "weight": 1.0},
            {"critic": "ssim", "loss_weight": 1.0},
            {"critic": "gmsd", "weight": 1.0, "shape": "hing"},
        ],
        critic_opt={"micro_bach": 2, "grad": "fuse", "log": ["shares"]},
        critcs=[],
    )
    opt["critic_opts"] = {}
    found = "\n".join(problems(opt))
    for part in (
        "did you mean 'gmsd'",
        "did you mean 'weight'",
        "did you mean 'hinge'",
        "did you mean 'micro_batch'",
        "grad must be one of",
        "did you mean 'share'",
        "train.critcs would be ignored by BasicSR; did you mean 'critics'?",
        "'critic_opts' stands at the top level",
    ):
        assert part in found
    assert "train.critics[0]" in found


@pytest.mark.parametrize("name", ["critic", "Critics", "critcs", "critics_opt", "critic_options", "cri_opt"])
def test_blocks_that_basicsr_would_ignore_are_found_without_critics(name):
    assert any("would be ignored" in problem for problem in problems(options(**{name: [GMSD]})))


def test_ordinary_configs_pass():
    train = {
        "perceptual_opt": None, "ldl_opt": {}, "gan_opt": {}, "optim_d": {}, "net_d_iters": 1, "ema_decay": 0.9,
        "warmup_iter": -1, "total_iter": 10, "grad_clip": 1, "fix_flow": 5, "tsa_iter": 1, "optim_critic": {},
    }  # fmt: skip
    assert read_plan(options(**train)) is None
    plan = read_plan(
        options(critics={"gmsd": 0.5, "fake-brightness": {"weight": 1}}, critic_opt={"log": "share"}, **train)
    )
    assert [term.label for term in plan.loss.terms] == ["gmsd", "fake-brightness"]
    assert plan.extras == ("share",)


def test_options_reach_the_loss():
    given = {
        "grad": "autograd",
        "micro_batch": None,
        "input_range": [-1, 1],
        "on_nonfinite": "raise",
        "lean": True,
        "seed": 7,
    }
    loss = read_plan(options(critics=[GMSD], critic_opt=given)).loss
    assert (loss.grad, loss.micro_batch, loss.input_range) == ("autograd", None, (-1, 1))
    assert (loss.on_nonfinite, loss.lean, loss.seed) == ("raise", True, 7)


def test_options_without_critics_are_an_error():
    assert problems(options(critic_opt={"grad": "fused"})) == ("train.critic_opt is given without train.critics",)


@pytest.mark.parametrize("none", [None, [], {}])
def test_no_critics_are_none(none):
    assert read_plan(options(critics=none)) is None


@pytest.mark.parametrize(
    ("network", "dataset", "said"),
    [
        ({"num_out_ch": 1}, {}, "network_g gives one channel (num_out_ch: 1)"),
        ({"in_chans": 1}, {}, "network_g gives one channel (in_chans: 1)"),
        ({"channels": 1}, {}, "network_g gives one channel (channels: 1)"),
        ({}, {"color": "y"}, "datasets.val gives luma alone (color: y)"),
        ({"channels": 64}, {"color": "gray"}, "datasets.val gives luma alone (color: gray)"),
        ({"num_out_ch": 3, "num_in_ch": 1}, {}, None),
    ],
)
def test_grey_restorers_are_refused_at_the_start_unless_replicated(network, dataset, said):
    opt = options(critics=[GMSD])
    opt["network_g"] = {"type": "SwinIR", **network}
    opt["datasets"]["val"] = {"type": "PairedImageDataset", **dataset}
    opt["val"] = {"metrics": {"own": {"type": "calculate_critic_gmsd"}}}
    if said is None:
        assert read_plan(opt) is not None
        return
    assert problems(opt) == (
        f"term 'gmsd': {said}, but critics judge colour images: say grey: replicate in critic_opt",
    )
    with pytest.raises(ConfigError) as error:
        prepare_metrics(opt)
    assert error.value.problems == (f"val.metrics.own: {said}, but critics judge colour images: say grey: replicate",)
    opt["train"]["critic_opt"] = {"grey": "replicate"}
    opt["val"]["metrics"]["own"]["grey"] = "replicate"
    prepare_metrics(opt)
    assert read_plan(opt).loss.terms[0].signature.endswith("|grey:replicate")


@pytest.mark.parametrize(
    ("kind", "meant"),
    [
        ("critic_mini-fr", "critic_mini_fr"),
        ("critic-mini-fr", "critic_mini_fr"),
        ("Critic_Mini_FR", "critic_mini_fr"),
        ("criticLoss", "CriticLoss"),
    ],
)
def test_a_loss_type_in_another_spelling_gets_the_hint(kind, meant):
    opt = options(pixel_opt={"type": kind, "loss_weight": 1.0})
    assert problems(opt) == (f"train.pixel_opt: type {kind!r} is written {meant!r} here",)


def test_judges_alone_train_nothing():
    opt = options(critics=[{**GMSD, "weight": 0}])
    assert read_plan(opt) is not None
    del opt["train"]["pixel_opt"]
    assert problems(opt) == ("train.critics only watch, and there is no other loss, so nothing would be trained",)


def test_a_share_that_never_comes_is_refused():
    opt = options(critics=[GMSD], critic_opt={"log": ["share"], "share_every": 0})
    assert "log: [share] never comes with share_every: 0" in problems(opt)[0]


def test_two_terms_of_one_critic_need_names():
    assert "give each its own 'name'" in problems(options(critics=[GMSD, GMSD]))[0]
    plan = read_plan(options(critics=[GMSD, GMSD | {"name": "gmsd-crop", "crop": 16}]))
    assert [term.label for term in plan.loss.terms] == ["gmsd", "gmsd-crop"]


def test_a_number_that_yaml_reads_as_text_is_explained():
    import yaml

    train = yaml.safe_load("critics: [{critic: gmsd, weight: 1e-4}]")
    assert any("!!float 1e-4" in problem for problem in problems(options(**train)))
    train = yaml.safe_load("critics: [{critic: gmsd, weight: !!float 1e-4}]")
    assert read_plan(options(**train)).loss.terms[0].spec.weight == 1e-4

    train = yaml.safe_load("critics: [{critic: patch, weights: null, share: 1e-1, joint: {lr: 5e-4}}]")
    found = problems(options(**train))
    assert {
        "YAML reads 1e-1 as text: write share: !!float 1e-1",
        "YAML reads 5e-4 as text: write lr: !!float 5e-4",
    } <= {problem.rpartition(": YAML")[2] or problem for problem in found}


@pytest.mark.parametrize(
    ("term", "anchors", "part"),
    [
        (GMSD, [{"kind": "opinions", "root": "x.csv"}], "no term of this loss is `joint`"),
        (PATCH, {"kind": "opinions"}, "expected a list of sources"),
        (PATCH, [{"kind": "opinion"}], "there is no 'opinion'; did you mean 'opinions'?"),
        (PATCH, [{"kind": "opinions", "root": "x.csv"}], "x.csv is not a file"),
    ],
)
def test_labelled_images_that_will_not_do_are_named(term, anchors, part):
    found = problems(options(critics=[term], critic_opt={"anchors": anchors}))
    assert any(problem.startswith("train.critic_opt.anchors: ") and part in problem for problem in found), found


L1 = {"type": "L1Loss", "loss_weight": 0.01, "reduction": "mean"}


@pytest.mark.parametrize(
    ("pixel", "given", "weight", "said"),
    [
        (L1, None, 0.01, "train.pixel_opt, an L1 loss of weight 0.01"),
        ({"type": "CharbonnierLoss"}, None, 1.0, "train.pixel_opt, an L1 loss of weight 1"),
        (L1, 2, 2, "an L1 loss of weight 2, as pixel_weight says"),
        (L1 | {"type": "MSELoss"}, None, 1.0, "though train.pixel_opt is MSELoss of weight 0.01, reduction mean"),
        (L1 | {"reduction": "sum"}, None, 1.0, "though train.pixel_opt is L1Loss of weight 0.01, reduction sum"),
        (None, None, 1.0, "an L1 loss of weight 1, though train.pixel_opt is missing: set pixel_weight in critic_opt"),
    ],
)
def test_shares_are_relative_to_the_l1_loss_of_the_config(pixel, given, weight, said):
    given = {} if given is None else {"pixel_weight": given}
    plan = read_plan(options(critics=[{"critic": "gmsd", "share": 0.2}], pixel_opt=pixel, critic_opt=given))
    assert plan.loss._shares.pixel_weight == weight
    assert said in plan.relative
    assert read_plan(options(critics=[GMSD], pixel_opt=pixel, critic_opt=given)).relative is None


def with_budget(budget, **changes):
    opt = options(critics=[GMSD | {"start": 500}], critic_opt={"budget": budget}, total_iter=1000)
    opt["datasets"] |= {"val": {"name": "Set14", "phase": "val"}, "val_2": {"name": "Set5", "phase": "val"}}
    opt["val"] = {"val_freq": 5e2, "metrics": {"crisp": {"type": "calculate_psnr", "crop_border": 4}}}
    return opt | changes


@pytest.mark.parametrize(
    ("budget", "metric"),
    [
        ({"psnr": -0.5}, {"type": "calculate_psnr", "crop_border": 4}),
        ({"lpips-alex": 0.01}, {"type": "calculate_critic", "critic": "lpips-alex"}),
        ({"ms-ssim": -0.01}, {"type": "calculate_critic_ms_ssim"}),
    ],
)
def test_a_budget_follows_the_metric_that_measures_it(budget, metric):
    opt = with_budget(budget)
    opt["val"]["metrics"] = {"other": {"type": "calculate_critic", "critic": "gmsd"}, "mine": metric}
    spending = read_plan(opt).spending
    assert spending.sources == dict.fromkeys(budget, "mine")
    assert (spending.dataset, spending.start, spending.end) == ("Set14", 500, 1000)


def test_a_budget_that_nothing_measures_is_refused_at_once():
    opt = with_budget({"psnr": -0.5, "ssim": -0.01}, val={"val_freq": 1000, "metrics": {}})
    found = problems(opt)
    assert "no metric under val.metrics measures 'psnr'; add psnr: {type: calculate_psnr, crop_border: 4}" in found[0]
    assert "add ssim: {type: calculate_critic, critic: ssim}" in found[1]
    assert "term 'gmsd' starts at 500, before the first validation (val_freq 1000)" in found[2]
    assert "give datasets.val and val.val_freq" in problems(with_budget({"psnr": -0.5}, datasets={}, val=None))[0]


def test_a_budget_of_the_wrong_sign_is_listed_with_the_rest():
    opt = with_budget({"psnr": 0.5, "niqe": -1})
    opt["train"]["critic_opt"] |= {"grad": "fuse", "budget_most": 0}
    found = "\n".join(problems(opt))
    for part in ("budget: 'psnr': higher is better", "'niqe' does not", "budget_most must be", "grad must be one of"):
        assert part in found


def test_patches_too_small_for_a_critic_are_found_whenever_it_starts():
    late = {"critic": "fake-large", "weight": 1.0, "start": 90_000}
    assert "needs sides of at least 161, but it would see 32x32 (gt_size 32)" in problems(options(critics=[late]))[0]
    opt = options(critics=[late])
    opt["gt_size"] = 192  # where RealESRGANModel reads it
    assert read_plan(opt) is not None
    assert read_plan(options(critics=[{"critic": "fake-even", "weight": 1.0}])) is not None
    opt = options(critics=[{"critic": "fake-even", "weight": 1.0}])
    opt["datasets"]["train"]["gt_size"] = 36
    assert "a multiple of 8" in problems(opt)[0]
    opt["train"]["critics"][0]["crop"] = 24
    assert read_plan(opt) is not None
    opt["train"]["critic_opt"] = {"shift": 16}
    assert "it would see 20x20 (gt_size 36 and shift 16)" in problems(opt)[0]


def test_labels_and_critics_that_do_not_fit_basicsr():
    assert "BasicSR logs a loss of its own as l_pix" in problems(options(critics=[GMSD | {"name": "pix"}]))[0]
    assert "stereo pairs" in problems(options(critics={"fake-stereo": 1.0}))[0]


def test_shipped_configs_name_what_exists():
    import yaml

    recipes = sorted(bsr.RECIPES.glob("*.yml"))
    assert len(recipes) >= 3
    for file in recipes:
        opt = yaml.safe_load(file.read_text())
        terms = opt["train"].get("critics") or opt["train"]["perceptual_opt"]["critics"]
        size = opt["datasets"]["train"]["gt_size"]
        for spec in parse_terms(terms, str(file)):
            assert spec.card.min_size <= size
        for metric in opt["val"]["metrics"].values():
            if "critic" in metric:
                assert metric["better"] == get_card(metric["critic"]).better
        assert opt["name"] == file.stem
        header = file.read_text().split("\nname:")[0]
        assert all(word in header for word in ("Launch", "Override", "Memory", "Weights"))


def test_an_unknown_critic_is_a_known_kind_of_error():
    with pytest.raises(UnknownCritic):
        get_card("gmsdd")
