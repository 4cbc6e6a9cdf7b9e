"""Judges that others taught: random weights in the authors' layout, against plain builds of their networks."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from images import pair
from torch import Tensor, nn

from perceptloss import create_critic
from perceptloss.critics import afine, clip_iqa, musiq
from perceptloss.errors import WeightsError
from perceptloss.networks.functional import LUMA

torchvision = pytest.importorskip("torchvision")
IMAGENET = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def with_statistics(net: nn.Module) -> nn.Module:
    """A network in evaluation mode whose stored statistics and affine parts are those of no fresh one."""
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor in (module.running_mean, module.bias):
                nn.init.normal_(tensor, std=0.1)
            for tensor in (module.running_var, module.weight):
                nn.init.uniform_(tensor, 0.5, 1.0)
    return net.eval()


def same(
    name: str, state: Mapping[str, Tensor] | list[Mapping[str, Tensor]], x: Tensor, wanted: Tensor, **options
) -> None:
    with torch.no_grad():
        found = create_critic(name, state, options=options)(x)
    torch.testing.assert_close(found, wanted.flatten(), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    return pair(2, 70, 100)[0]


@torch.no_grad()
def test_cnniqa(pictures):
    net = nn.ModuleDict({"conv1": nn.Conv2d(1, 50, 7), "fc1": nn.Linear(100, 800), "fc2": nn.Linear(800, 800)})
    net["fc3"] = nn.Linear(800, 1)
    grey = (pictures * torch.tensor(LUMA).view(3, 1, 1)).sum(1, keepdim=True)
    scores = []
    for image in grey:
        values = []
        for top in (0, 32):
            for left in (0, 32, 64):
                patch = image[:, top : top + 32, left : left + 32]
                around = torch.cat([patch[:, :1], patch, patch[:, -1:]], 1)
                around = torch.cat([around[..., :1], around, around[..., -1:]], 2)
                boxes = around.unfold(1, 3, 1).unfold(2, 3, 1).flatten(3)
                normal = (patch - boxes.mean(3)) / (boxes.std(3, correction=0) + 1)
                h = net["conv1"](normal[None]).flatten(2)
                h = F.relu(net["fc1"](torch.cat([h.max(2).values, h.min(2).values], 1)))
                values.append(net["fc3"](F.relu(net["fc2"](h))))
        scores.append(torch.stack(values).mean())
    same("cnniqa", net.state_dict(), pictures, torch.stack(scores))


@torch.no_grad()
def test_dbcnn(pictures):
    plan = ((48, 1), (48, 2), (64, 1), (64, 2), (64, 1), (64, 2), (128, 1), (128, 1), (128, 2))
    layers, channels = [], 3
    for wide, stride in plan:
        layers += [nn.Conv2d(channels, wide, 3, stride, 1), nn.BatchNorm2d(wide), nn.ReLU()]
        channels = wide
    net = nn.ModuleDict({"features1": torchvision.models.vgg16().features[:-1], "features2": nn.Sequential(*layers)})
    net["fc"] = nn.Linear(512 * 128, 1)
    with_statistics(net)
    objects, damage = net["features1"](IMAGENET(pictures)), net["features2"](IMAGENET(pictures))
    assert objects.shape[2:] != damage.shape[2:], "70 rows are 4 of VGG16's and 5 of the other's"
    damage = F.interpolate(damage, objects.shape[2:], mode="bilinear", align_corners=True)
    products = torch.einsum("nihw,njhw->nij", objects, damage) / objects[0, 0].numel()
    roots = torch.sqrt(products.flatten(1) + 1e-8)
    wanted = net["fc"](roots / roots.norm(dim=1, keepdim=True))
    same("dbcnn", {f"module.{k}": v for k, v in net.state_dict().items()}, pictures, wanted)


@torch.no_grad()
@pytest.mark.parametrize("normalise", [False, True])
def test_nima(normalise):
    x = pair(1, 224)[0]
    vgg = torchvision.models.vgg16().features
    last = nn.Linear(25088, 10)
    marks = last(vgg(IMAGENET(x) if normalise else x).flatten(1)).softmax(1)
    wanted = sum((n + 1) * marks[:, n] for n in range(10))
    state = {f"features.{k}": v for k, v in vgg.state_dict().items()}
    state |= {f"classifier.1.{k}": v for k, v in last.state_dict().items()}
    same("nima", state, x, wanted, normalise=normalise)


@torch.no_grad()
@pytest.mark.parametrize("size", [(70, 100), (64, 128), (113, 79)])
def test_paq2piq(size):
    x = pair(2, *size)[0]
    body = nn.Sequential(*list(torchvision.models.resnet18().children())[:-2])
    parts = [nn.Identity(), nn.Flatten(), nn.BatchNorm1d(1024), nn.Dropout(), nn.Linear(1024, 512), nn.ReLU()]
    head = nn.Sequential(*parts, nn.BatchNorm1d(512), nn.Dropout(), nn.Linear(512, 1))
    net = with_statistics(nn.ModuleDict({"body": body, "head": head}))
    whole = torch.tensor([[n, 0.0, 0.0, size[1], size[0]] for n in range(2)])
    quarters = torchvision.ops.RoIPool((2, 2), 1 / 32)(body(x), whole)
    wanted = head(torch.cat([F.adaptive_max_pool2d(quarters, 1), F.adaptive_avg_pool2d(quarters, 1)], 1))
    same("paq2piq", {"model": net.state_dict()}["model"], x, wanted)


@torch.no_grad()
def test_arniqa_is_that_of_torchmetrics(pictures, monkeypatch):
    module = pytest.importorskip("torchmetrics.functional.image.arniqa")
    monkeypatch.setattr(module._ARNIQA, "_load_weights", lambda self: None)
    for labels, marks in (("koniq10k", (1, 100)), ("kadid10k", (1, 5))):
        theirs = with_statistics(module._NoTrainArniqa(labels))
        encoder = {f"model.{k}": v for k, v in theirs.encoder.state_dict().items()}
        regressor = {"weights": theirs.regressor.weight, "biases": theirs.regressor.bias[0]}
        wanted = theirs(pictures, normalize=True)
        same("arniqa", [{**encoder, "projector.0.weight": torch.ones(3)}, regressor], pictures, wanted, marks=marks)


class TestCLIPIQA:
    @pytest.fixture(scope="class")
    def model(self):
        open_clip = pytest.importorskip("open_clip")
        torch.manual_seed(0)
        # piq rounds to halves, as OpenAI's file is
        return with_statistics(open_clip.create_model("RN50-quickgelu", pretrained=None)).half().float()

    @torch.no_grad()
    def test_is_that_of_piq(self, model, pictures, monkeypatch, tmp_path):
        import open_clip
        from piq import clip_iqa as module
        from piq.feature_extractors import clip as theirs

        tokenize = open_clip.get_tokenizer("RN50-quickgelu")
        monkeypatch.setattr(theirs, "load", lambda: theirs.build_model(dict(model.state_dict())).float())
        monkeypatch.setattr(module, "download_tensor", lambda *_: tokenize(list(clip_iqa.PROMPTS[0])))
        wanted = module.CLIPIQA()(pictures)
        monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: model)
        clip_iqa.export(tmp_path / "clip-iqa.safetensors", pretrained=None)
        critic = create_critic("clip-iqa", tmp_path / "clip-iqa.safetensors")
        torch.testing.assert_close(critic(pictures), wanted.flatten(), rtol=1e-4, atol=1e-5)

    def test_reads_openais_file_but_for_the_prompts(self, model):
        state = model.state_dict()
        with pytest.raises(WeightsError, match="anchors"):
            create_critic("clip-iqa", state)
        anchors = F.normalize(torch.randn(1, 2, 1024), dim=-1)
        assert create_critic("clip-iqa", [state, {"anchors": anchors}]).weights_id != "random"

    @torch.no_grad()
    def test_pairs_are_averaged_and_the_logit_is_of_their_mean(self, pictures):
        critic = clip_iqa.CLIPIQA(create_critic("clip-iqa", None).card, pairs=3, width=8, embedding=16)
        singles = []
        for n in range(3):
            one = clip_iqa.CLIPIQA(critic.card, width=8, embedding=16)
            one.load_state_dict({**critic.state_dict(), "anchors": critic.anchors[n : n + 1]})
            singles.append(one.freeze()(pictures))
        torch.testing.assert_close(critic.freeze()(pictures), torch.stack(singles).mean(0))


class TestMUSIQ:
    def test_resampling_is_tensorflows(self):
        """`tf.image.resize(..., method="gaussian")`: taps within 1.5 pixels of exp(-2 d^2), also where it shrinks."""
        line = torch.rand(7, dtype=torch.float64)
        for size in (3, 5, 12):
            wanted = []
            for out in range(size):
                centre = (out + 0.5) * 7 / size
                taps = {n: math.exp(-2 * (n + 0.5 - centre) ** 2) for n in range(7) if abs(n + 0.5 - centre) <= 1.5}
                wanted.append(sum(w * line[n] for n, w in taps.items()) / sum(taps.values()))
            found = musiq.gaussian_resize(line.expand(1, 1, 4, 7), 4, size)[0, 0, 1]
            torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-12, atol=0)

    def test_places_are_hashed_to_ten_by_ten(self):
        assert musiq.hashed_places(2, 4).tolist() == [0, 2, 5, 7, 50, 52, 55, 57]
        assert musiq.hashed_places(1, 20).tolist() == [n // 2 for n in range(20)]

    def test_patches_have_zeros_on_both_sides(self):
        cut, places = musiq.patches(torch.ones(1, 3, 32, 40))
        assert cut.shape == (1, 2, 3, 32, 32) and places.tolist() == [0, 5]
        assert [cut[0, n, 0, 0].sum().item() for n in range(2)] == [20, 20]
        assert not cut[0, 0, 0, :, :12].any() and not cut[0, 1, 0, :, 20:].any()

    def test_versions_keep_the_shape(self):
        sizes = [tuple(v.shape[2:]) for v in create_critic("musiq", None).versions(torch.rand(1, 3, 60, 90))]
        assert sizes == [(149, 224), (256, 384), (60, 90)]

    def test_reads_the_names_of_flax(self, pictures, tmp_path):
        import numpy as np

        sizes = {"sides": (32, 64), "width": 16, "layers": 2, "heads": 2, "inner": 24}
        critic = create_critic("musiq", None, options=sizes)
        ours = critic.state_dict()
        flax = {"opt/target/" + key: value for key, value in self.as_flax(ours, heads=2).items()}
        file = tmp_path / "ckpt.npz"
        np.savez(file, **{k: v.numpy() for k, v in flax.items()}, **{"opt/state/step": np.zeros(1)})
        read = create_critic("musiq", file, options=sizes)
        assert all(torch.equal(read.state_dict()[key], value) for key, value in ours.items())
        assert torch.equal(read(pictures), critic(pictures))

    @torch.no_grad()
    def test_is_that_of_layers_of_flax(self):
        """What linen of flax 0.12.8 and jax 0.10.2 gave for these weights, under `as_flax`, and this picture."""
        sizes = {"sides": (64, 96), "width": 24, "layers": 2, "heads": 3, "inner": 40}
        critic = create_critic("musiq", None, options=sizes)
        for place, (name, p) in enumerate(sorted(critic.named_parameters())):
            wave = 0.3 * torch.sin(0.7 * torch.arange(p.numel(), dtype=torch.float64) + place)
            p.copy_(wave.view(p.shape) + ("norm" in name and name.endswith("weight")))
        assert critic(pair(1, 70, 101)[0]).item() == pytest.approx(0.5153179, rel=1e-4)

    @staticmethod
    def as_flax(ours: Mapping[str, Tensor], heads: int) -> dict[str, Tensor]:
        """Names and layouts of the authors' archives: kernels (height, width, in, out), heads apart."""
        flax = {"conv_root/kernel": ours["embed.root.weight"].permute(2, 3, 1, 0)}
        for ending, name in (("weight", "scale"), ("bias", "bias")):
            flax[f"gn_root/{name}"] = ours[f"embed.norm.{ending}"]
            flax[f"Transformer/encoder_norm/{name}"] = ours[f"norm.{ending}"]
            for part in ("1", "2", "3", "_proj"):
                flax[f"block1/unit1/gn{part}/{name}"] = ours[f"embed.norm{part}.{ending}"]
        for part in ("1", "2", "3", "_proj"):
            flax[f"block1/unit1/conv{part}/kernel"] = ours[f"embed.conv{part}.weight"].permute(2, 3, 1, 0)
        for name, key in (("embedding", "embed.project"), ("head", "head")):
            flax |= {f"{name}/kernel": ours[f"{key}.weight"].mT, f"{name}/bias": ours[f"{key}.bias"]}
        flax["Transformer/posembed_input/pos_embedding"] = ours["places"]
        flax["Transformer/scaleembed_input/scale_embedding"] = ours["scales"]
        flax["Transformer/cls"] = ours["token"]
        for n in range(2):
            at, key = f"Transformer/encoderblock_{n}", f"blocks.{n}"
            for place, norm in ((0, 1), (2, 2)):
                flax[f"{at}/LayerNorm_{place}/scale"] = ours[f"{key}.norm_{norm}.weight"]
                flax[f"{at}/LayerNorm_{place}/bias"] = ours[f"{key}.norm_{norm}.bias"]
            attention = f"{at}/MultiHeadDotProductAttention_1"
            for name in ("query", "key", "value"):
                flax[f"{attention}/{name}/kernel"] = ours[f"{key}.{name}.weight"].mT.unflatten(1, (heads, -1))
                flax[f"{attention}/{name}/bias"] = ours[f"{key}.{name}.bias"].unflatten(0, (heads, -1))
            flax[f"{attention}/out/kernel"] = ours[f"{key}.out.weight"].mT.unflatten(0, (heads, -1))
            flax[f"{attention}/out/bias"] = ours[f"{key}.out.bias"]
            for dense, layer in ((0, "fc_1"), (1, "fc_2")):
                flax[f"{at}/MlpBlock_3/Dense_{dense}/kernel"] = ours[f"{key}.{layer}.weight"].mT
                flax[f"{at}/MlpBlock_3/Dense_{dense}/bias"] = ours[f"{key}.{layer}.bias"]
        return flax

    @torch.no_grad()
    def test_ten_marks_give_their_mean(self, pictures):
        critic = create_critic("musiq", None, options={"sides": (), "marks": 10, "width": 16, "layers": 1, "heads": 2})
        critic.head.weight.zero_()
        critic.head.bias.copy_(torch.full((10,), -100.0)).scatter_(0, torch.tensor([2, 6]), 0.0)
        torch.testing.assert_close(critic(pictures), torch.full((2,), 5.0))


class TestAFINE:
    """Against a build of torch's own attention layers, in the names of the authors' file."""

    @pytest.fixture(scope="class")
    def state(self) -> dict[str, Tensor]:
        torch.manual_seed(3)
        width, layers = 16, 2
        state = {
            "conv1.weight": 0.05 * torch.randn(width, 3, 32, 32),
            "class_embedding": torch.randn(width),
            "positional_embedding": torch.randn(50, width),
            **{f"ln_pre.{k}": v for k, v in nn.LayerNorm(width).state_dict().items()},
            "proj": torch.randn(width, 4),
        }
        for n in range(layers):
            block = {"attn": nn.MultiheadAttention(width, 2), "ln_1": nn.LayerNorm(width), "ln_2": nn.LayerNorm(width)}
            block |= {"mlp.c_fc": nn.Linear(width, 4 * width), "mlp.c_proj": nn.Linear(4 * width, width)}
            for name, layer in block.items():
                state |= {f"transformer.resblocks.{n}.{name}.{k}": v for k, v in layer.state_dict().items()}
        state = {f"finetuned_clip.visual.{k}": v for k, v in state.items()}
        state["finetuned_clip.logit_scale"] = torch.tensor(1.0)
        for name, layer in (
            ("proj_feat", nn.Linear(32, 8)),
            ("proj_head.0", nn.Linear(6 + 16, 48)),
            ("proj_head.2", nn.Linear(48, 1)),
        ):
            state |= {f"natural.{name}.{k}": v for k, v in layer.state_dict().items()}
        state |= {f"fidelity.{k}": torch.randn(1, 1, 3 + 2 * width) for k in ("alpha", "beta")}
        state |= {f"{k}.{e}": torch.zeros(1, 3, 1, 1) for k in ("natural", "fidelity") for e in ("mean", "std")}
        scales = {"fidelity_scale.yita3": 0.4, "fidelity_scale.yita4": 0.2, "natural_scale.yita3": 0.1}
        return state | {
            k: torch.tensor(v) for k, v in (scales | {"natural_scale.yita4": 0.5, "adapter.k": 1.5}).items()
        }

    def tokens(self, state: Mapping[str, Tensor], image: Tensor) -> list[Tensor]:
        at = "finetuned_clip.visual."
        h = F.conv2d(image, state[at + "conv1.weight"], stride=32).flatten(2).mT
        h = torch.cat([state[at + "class_embedding"].expand(len(h), 1, -1), h], 1)
        codes = F.interpolate(state[at + "positional_embedding"][None, None], h.shape[1:], mode="bicubic")[0]
        h, found = F.layer_norm(h + codes, (16,), state[at + "ln_pre.weight"], state[at + "ln_pre.bias"]), []
        for n in range(2):
            block = {k.removeprefix(f"{at}transformer.resblocks.{n}."): v for k, v in state.items()}
            attention = nn.MultiheadAttention(16, 2, batch_first=True)
            attention.load_state_dict({k: block[f"attn.{k}"] for k in attention.state_dict()})
            normal = F.layer_norm(h, (16,), block["ln_1.weight"], block["ln_1.bias"])
            h = h + attention(normal, normal, normal)[0]
            inner = F.linear(
                F.layer_norm(h, (16,), block["ln_2.weight"], block["ln_2.bias"]),
                block["mlp.c_fc.weight"],
                block["mlp.c_fc.bias"],
            )
            h = h + F.linear(inner * torch.sigmoid(1.702 * inner), block["mlp.c_proj.weight"], block["mlp.c_proj.bias"])
            found.append(F.relu(h[:, 1:]))
        return found

    @torch.no_grad()
    def test_is_the_formula(self, state):
        x, y = pair(2, 70, 100)
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (afine._MEAN, afine._STD))
        images = [F.interpolate((i - mean) / std, (96, 128), mode="bicubic") for i in (x, y)]
        (fx, fy) = ([(i * std + mean).flatten(2).mT, *self.tokens(state, i)] for i in images)

        def unnatural(features: list[Tensor]) -> Tensor:
            rows = [torch.cat([f.mean(1), ((f - f.mean(1, keepdim=True)) ** 2).mean(1)], 1) for f in features]
            rows[1:] = [
                F.linear(r, state["natural.proj_feat.weight"], state["natural.proj_feat.bias"]) for r in rows[1:]
            ]
            h = F.gelu(
                F.linear(torch.cat(rows, 1), state["natural.proj_head.0.weight"], state["natural.proj_head.0.bias"])
            )
            read = F.linear(h, state["natural.proj_head.2.weight"], state["natural.proj_head.2.bias"])[:, 0]
            return 4 / (1 + torch.exp(-(read - 0.1) / 0.5)) - 2

        weights = [F.softplus(state[f"fidelity.{k}"]).flatten() for k in ("alpha", "beta")]
        alpha, beta = (w / sum(w.sum() for w in weights) for w in weights)
        similar, at = torch.zeros(2), 0
        for a, b in zip(fx, fy, strict=True):
            for c in range(a.shape[-1]):
                p, q = a[..., c], b[..., c]
                mp, mq = p.mean(1), q.mean(1)
                vp, vq, both = p.var(1, correction=0), q.var(1, correction=0), (p * q).mean(1) - mp * mq
                similar += alpha[at] * (2 * mp * mq + 1e-10) / (mp**2 + mq**2 + 1e-10)
                similar += beta[at] * (2 * both + 1e-10) / (vp + vq + 1e-10)
                at += 1
        lost = 4 / (1 + torch.exp(-(1 - similar - 0.4) / 0.2)) - 2
        nx, ny = unnatural(fx), unnatural(fy)
        wanted = torch.exp(F.softplus(torch.tensor(1.5)) * (ny - nx)) * nx + lost
        critic = create_critic("a-fine", state, options={"width": 16, "layers": 2, "heads": 2, "hidden": 8})
        torch.testing.assert_close(critic.linear(x, y), wanted, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            critic(x, y), 100 / (1 + torch.exp(-(wanted + 1.971) / 2.3734)), rtol=1e-4, atol=1e-3
        )


@pytest.mark.parametrize("name", ["topiq-fr", "topiq-nr"])
def test_topiq_takes_any_size_and_a_trunk_of_torchvision(name):
    from small import build_small

    critic = build_small(name)
    x, y = pair(2, 70, 99)
    assert critic(x, y if name == "topiq-fr" else None).shape == (2,)
    whole = create_critic(name, None)
    trunk = {k: torch.full_like(v, 0.5) for k, v in torchvision.models.resnet50().state_dict().items()}
    head = {k: v for k, v in whole.state_dict().items() if not k.startswith("trunk.")}
    assert create_critic(name, [trunk, head]).trunk.conv1.weight.eq(0.5).all()


def test_topiq_beside_a_reference_sees_it():
    from small import build_small

    x, y = pair(2, 64)
    critic = build_small("topiq-fr")
    assert (critic(x, y) != critic(x, y.flip(3))).all()
