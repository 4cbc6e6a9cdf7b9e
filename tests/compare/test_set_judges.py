"""Judges of whole sets: their distances, intervals and remarks, and the command that prints them."""

from __future__ import annotations

import csv
import math
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from perceptloss.cli.main import main
from perceptloss.compare.plan import Plan, make_plan
from perceptloss.compare.results import Results, load_results
from perceptloss.compare.run import run_plan
from perceptloss.compare.set_judges import NETWORKS, parse_set_judges, set_scores
from perceptloss.compare.sets import SetScore, remarks, set_section
from perceptloss.compare.settings import Pairing, Settings
from perceptloss.compare.statistics.sets import cmmd, frechet, kernel
from perceptloss.errors import ConfigError, MissingWeights


def features(count: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, length)) * np.linspace(0.5, 1.5, length) + 0.3


ONES = np.ones


class TestDistances:
    @pytest.mark.parametrize("counts", [(60, 60), (60, 90), (9, 12)], ids=["many", "uneven", "fewer than features"])
    def test_frechet_is_that_of_clean_fid(self, counts):
        fid = pytest.importorskip("cleanfid.fid")
        x, y = features(counts[0], 16), 0.2 + features(counts[1], 16, 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            wanted = fid.frechet_distance(x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False))
        assert frechet(x, y)(ONES(len(x)), ONES(len(y))) == pytest.approx(float(wanted), rel=1e-5)

    def test_frechet_of_shifted_and_scaled_gaussians(self):
        x = features(500, 3)
        assert frechet(x, x + np.array([1, 2, 2]))(ONES(500), ONES(500)) == pytest.approx(9)
        spread = np.cov(x, rowvar=False).trace()
        assert frechet(x, x.mean(0) + 3 * (x - x.mean(0)))(ONES(500), ONES(500)) == pytest.approx(4 * spread)

    def test_kernel_is_that_of_clean_fid(self):
        fid = pytest.importorskip("cleanfid.fid")
        x, y = features(40, 16), 0.2 + features(40, 16, 1)
        assert kernel(x, y)(ONES(40), ONES(40)) == pytest.approx(fid.kernel_distance(x, y, num_subsets=1), rel=1e-9)

    def test_cmmd_is_the_formula(self):
        x, y = features(7, 5), features(9, 5, 1)
        a, b = (v / np.linalg.norm(v, axis=1)[:, None] for v in (x, y))

        def mean(p: np.ndarray, q: np.ndarray) -> float:
            return float(np.mean([math.exp(-((i - j) ** 2).sum() / 200) for i in p for j in q]))

        assert cmmd(x, y)(ONES(7), ONES(9)) == pytest.approx(1000 * (mean(a, a) + mean(b, b) - 2 * mean(a, b)))

    @pytest.mark.parametrize("distance", [frechet, kernel, cmmd])
    def test_counts_are_repetitions(self, distance):
        x, y = features(6, 4), features(6, 4, 1)
        counts = np.array([2, 0, 1, 1, 2, 0.0])
        repeated = np.repeat(x, counts.astype(int), 0)
        once = distance(x, y)(counts, ONES(6))
        if distance is kernel:  # where copies of one image are not compared with each other
            assert once != pytest.approx(distance(repeated, y)(ONES(6), ONES(6)))
        else:
            assert once == pytest.approx(distance(repeated, y)(ONES(6), ONES(6)))

    def test_kernel_of_one_distribution_is_zero_on_average(self):
        found = [kernel(features(20, 8, s), features(20, 8, 100 + s))(ONES(20), ONES(20)) for s in range(60)]
        assert abs(np.mean(found)) < 3 * np.std(found) / math.sqrt(60)


def pooled(image: torch.Tensor) -> np.ndarray:
    """A small network: means and deviations of colours in quarters."""
    parts = image[0].unfold(1, 8, 8).unfold(2, 8, 8).flatten(3)
    return torch.cat([parts.mean(3).flatten(), parts.std(3).flatten()]).double().numpy()


def planned(systems: dict[str, Path], reference: Path | None) -> Plan:
    asked = ["tv" if reference is None else "psnr"]
    return make_plan(systems, reference, asked, rules=Pairing(), settings=Settings(device="cpu"))


@pytest.fixture
def folders(tmp_path):
    """Twelve pictures, slightly and strongly noisy versions of them."""
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    for name, noise in (("gt", 0.0), ("near", 0.02), ("far", 0.25)):
        (tmp_path / name).mkdir()
        for n in range(12):
            clean = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(n)).repeat_interleave(8, 1)
            image = clean.repeat_interleave(8, 2) + noise * torch.randn(3, 16, 16, generator=generator)
            levels = (255 * image.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(levels).save(tmp_path / name / f"{n}.png")
    return tmp_path


class TestScores:
    def test_orders_systems_with_intervals_and_says_that_the_set_is_small(self, folders):
        plan = planned({n: folders / n for n in ("far", "near")}, folders / "gt")
        small = {name: lambda device: pooled for name in NETWORKS}
        scores = set_scores(plan, ["fid", "kid", "cmmd"], networks=small)
        assert [(s.judge, s.system) for s in scores] == [
            (j, s) for j in ("fid", "kid", "cmmd") for s in ("far", "near")
        ]
        for far, near in zip(scores[::2], scores[1::2], strict=True):
            assert near.value < far.value and far.low < far.high
            assert far.change is None
            assert near.change == pytest.approx(near.value - far.value)
            assert near.change_high < 0, "the same draws for both"
        assert any("fid: 12 images cannot fill a covariance of 24 features" in said for said in remarks(scores))
        assert any("kid: 12 images" in said for said in remarks(scores))
        section = set_section(scores)
        assert [row[:2] for row in section.rows] == [(s.judge, s.system) for s in scores]
        assert any("cannot fill" in note for note in section.notes)

    def test_a_system_that_is_the_reference_is_at_no_distance(self, folders):
        shutil.copytree(folders / "gt", folders / "same")
        plan = planned({"same": folders / "same"}, folders / "gt")
        small = {name: lambda device: pooled for name in NETWORKS}
        fid, cm = set_scores(plan, ["fid", "cmmd"], networks=small)
        assert fid.value == pytest.approx(0, abs=1e-9)
        assert cm.value == pytest.approx(0, abs=1e-9)

    def test_needs_references(self, folders):
        plan = planned({"near": folders / "near"}, None)
        with pytest.raises(ConfigError, match="give --ref"):
            set_scores(plan, ["fid"])

    def test_names_are_checked(self):
        assert parse_set_judges("fid, KID") == ["fid", "kid"]
        with pytest.raises(ConfigError, match=r"(?s)called 'fidd'.*fid is there twice.*there are fid, kid, cmmd"):
            parse_set_judges("fid,fidd,fid")


class _Inception(nn.Module):
    """In the place of NVIDIA's file: a TorchScript with `layers` that gives 2048 features."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AdaptiveAvgPool2d((32, 32)), nn.Flatten(), nn.Linear(3072, 2048))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_cmmd_reads_clip_from_its_file(monkeypatch, tmp_path):
    open_clip = pytest.importorskip("open_clip")
    file = tmp_path / "ViT-L-14-336px.pt"
    monkeypatch.setattr("perceptloss.compare.set_judges.find", lambda name: file)

    class Tiny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.visual = nn.Identity()
            self.visual.image_mean, self.visual.image_std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

        def encode_image(self, image: torch.Tensor) -> torch.Tensor:
            assert image.shape == (1, 3, 336, 336)
            return image.mean((2, 3))

    asked = []
    monkeypatch.setattr(open_clip, "create_model", lambda name, pretrained: asked.append((name, pretrained)) or Tiny())
    vector = NETWORKS["clip"](torch.device("cpu"))(torch.full((1, 3, 20, 30), 0.75))
    assert asked == [("ViT-L-14-336-quickgelu", str(file))]
    np.testing.assert_allclose(vector, [1, 1, 1], rtol=1e-5)


class TestCommand:
    def arguments(self, folders, *more: str) -> list[str]:
        systems = [f"{name}={folders / name}" for name in ("far", "near")]
        return ["compare", *systems, "--ref", str(folders / "gt"), "-c", "psnr", "--quiet", *more]

    @pytest.fixture
    def home(self, monkeypatch, tmp_path):
        """A network in the place of NVIDIA's."""
        pytest.importorskip("cleanfid")
        home = tmp_path / "home"
        home.mkdir()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.script(_Inception()).save(str(home / "inception-2015-12-05.pt"))
            monkeypatch.setenv("PERCEPTLOSS_HOME", str(home))
            yield home

    def test_prints_saves_and_reports_by_clean_fid(self, folders, home, capsys, tmp_path):
        saved, page = tmp_path / "saved.json", tmp_path / "page.html"
        more = ("--set-judges", "fid,kid", "--output", str(saved), "--report", str(page), "--embed", "none")
        assert main(self.arguments(folders, *more)) == 0
        out = capsys.readouterr().out
        rows = [line.split() for line in out.splitlines() if line.startswith(("fid  ", "kid  "))]
        assert [row[:2] for row in rows] == [["fid", "far"], ["fid", "near"], ["kid", "far"], ["kid", "near"]]
        shown = [float(row[2].replace("−", "-")) for row in rows]
        assert shown[1] < shown[0] and shown[3] < shown[2]
        assert "of 2048 features" in out

        results = load_results(saved)
        assert [(s.judge, s.system) for s in results.sets] == [tuple(row[:2]) for row in rows]
        fid = results.sets[1]
        assert fid.low < fid.high and fid.change == pytest.approx(fid.value - results.sets[0].value)
        assert fid.change_low < fid.change_high
        assert (fid.images, fid.features) == (12, 2048)
        first = page.read_text()
        assert main(["report", str(saved), "--output", str(page), "--embed", "none"]) == 0
        for shown in (first, page.read_text()):
            assert "12 images cannot fill a covariance of 2048 features" in shown
            assert all(f"<td>{cell}</td>" in shown for row in set_section(results.sets).rows for cell in row)

    def test_summary_csv_has_a_row_for_each(self, folders, home, capsys):
        assert main(self.arguments(folders, "--set-judges", "kid", "--format", "summary-csv")) == 0
        rows = {(row["system"], row["critic"]): row for row in csv.DictReader(capsys.readouterr().out.splitlines())}
        far, near = rows["far", "kid"], rows["near", "kid"]
        assert far["difference"] == "" and near["baseline"] == "far" and near["interval"] == "basic"
        assert float(near["difference"]) == pytest.approx(float(near["mean"]) - float(far["mean"]))
        assert float(near["low"]) < float(near["high"])

    def test_says_where_the_network_is_from(self, folders, monkeypatch, tmp_path, capsys):
        pytest.importorskip("cleanfid")
        monkeypatch.setenv("PERCEPTLOSS_HOME", str(tmp_path))
        with pytest.raises(MissingWeights, match=r"inception-2015-12-05\.pt, into the folder PERCEPTLOSS_HOME"):
            NETWORKS["inception"](torch.device("cpu"))
        assert main(self.arguments(folders, "--set-judges", "fid")) == 3
        assert "inception-2015-12-05.pt" in capsys.readouterr().err

    def test_stand_beside_a_critic(self, folders, capsys):
        alone = [part for part in self.arguments(folders, "--set-judges", "fid") if part not in ("-c", "psnr")]
        assert main(alone) == 2
        assert "--set-judges stand beside critics: give one, too, such as -c psnr" in capsys.readouterr().err

    @pytest.mark.parametrize("more", [("--format", "csv"), ("--output", "scores.csv")], ids=["format", "output"])
    def test_files_of_single_images_have_no_place_for_sets(self, folders, capsys, more):
        assert main(self.arguments(folders, "--set-judges", "fid", *more)) == 2
        assert "has a row for each image" in capsys.readouterr().err


def test_saved_scores_are_checked(folders):
    results = run_plan(planned({"far": folders / "far", "near": folders / "near"}, folders / "gt"))
    score = SetScore("fid", "far", 1.0, 0.5, 1.5, None, None, None, images=12, features=24)
    facts = replace(results, sets=(score,)).to_dict()
    assert Results.from_dict(facts).sets == (score,)
    facts["sets"] = [{**facts["sets"][0], "system": "else", "value": None}]
    with pytest.raises(ConfigError, match=r"(?s)fid is of 'else'.*must be finite numbers, got None"):
        Results.from_dict(facts)
    facts["sets"] = [{"judge": "fid"}]
    with pytest.raises(ConfigError, match="damaged or of another version"):
        Results.from_dict(facts)
