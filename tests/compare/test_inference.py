"""What stands beside the means: intervals, stars, families, groups, presets, columns made elsewhere, opinions."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from perceptloss.cli.main import main
from perceptloss.compare import Analysis, Results, load_results, strip
from perceptloss.compare.columns import Column
from perceptloss.compare.external import join_scores, read_scores
from perceptloss.compare.groups import read_groups
from perceptloss.compare.opinions import Opinion, read_opinions
from perceptloss.compare.presets import preset_names, read_preset
from perceptloss.compare.results import ImageRecord
from perceptloss.compare.statistics.units import Units, bounds
from perceptloss.compare.table import render
from perceptloss.compare.thresholds import check_thresholds, parse_thresholds
from perceptloss.errors import ConfigError

NAMES = {"up": "higher", "down": "lower"}


def results(values, systems=None, critics=NAMES, analysis=None):
    """Results of (systems, critics, images)."""
    values = np.asarray(values, dtype=float)
    systems = systems or tuple(f"s{n}" for n in range(len(values)))
    columns = tuple(
        Column(name, f"{name}|weights:none|rgb|fp32|perceptloss:1", {"name": name, "kind": "fr", "better": better})
        for name, better in list(critics.items())[: values.shape[1]]
    )
    images = tuple(ImageRecord(f"im{n:02}", (None,) * len(systems)) for n in range(values.shape[2]))
    nested = tuple(tuple(tuple(None if v != v else float(v) for v in row) for row in rows) for rows in values)
    baseline = systems[0] if len(systems) > 1 else None
    return Results(systems, columns, images, nested, baseline, analysis=analysis or Analysis(rounds=1000))


def clear(images=24, systems=2):
    """One critic sees a clear gain, the other none."""
    random = np.random.default_rng(1)
    content = random.normal(0.5, 0.1, images)
    rows = [
        [content + 0.05 * n + 0.01 * random.normal(size=images), content + 0.1 * random.normal(size=images)]
        for n in range(systems)
    ]
    return results(rows)


class TestTable:
    def test_interval_star_and_the_line_under_it(self):
        got = clear()
        lines = render(got).splitlines()
        effect = got.inference.effects[1][0]
        reach = max(effect.bounds.high - effect.difference, effect.difference - effect.bounds.low)
        assert f"+{effect.difference:.4f} ±{reach:.4f} *" in lines[3]
        assert lines[3].count("*") == 1, "the other critic sees nothing"
        assert "24 images · baseline s0 · 95 % intervals: paired BCa bootstrap, 1,000 resamples · seed 0" in lines[4]
        assert "sign-flip tests, Holm over 2 at 0.05" in lines[4]
        text = "\n".join(lines)
        assert "detectable with 24 images in 4 of 5 such comparisons: a true difference of up 0.01," in text
        assert "a difference is not yet a visible improvement" in text
        assert "not tested: other training seeds" in text

    def test_the_page_shows_what_is_printed(self):
        got = replace(clear(), systems=("swinir", "ours"), baseline="swinir", analysis=Analysis())
        page = Path(__file__).parents[2] / "docs" / "comparing.md"
        assert "\n".join(render(got).splitlines()[:7]) in page.read_text(encoding="utf-8")

    def test_markdown_latex_and_rows_follow(self):
        got = clear()
        assert r" \*) |" in render(got, "md")
        assert r"$\pm$" in render(got, "latex") and "{*}" in render(got, "latex")
        rows = list(csv.DictReader(io.StringIO(render(got, "summary-csv"))))
        effect = got.inference.effects[1][0]
        assert len(rows) == 4
        assert float(rows[2]["difference"]) == effect.difference
        assert (rows[2]["star"], rows[2]["family"], rows[2]["baseline"]) == ("1", "2", "s0")
        assert (rows[0]["difference"], rows[0]["better"], rows[1]["better"]) == ("", "higher", "lower")

    def test_json_holds_everything_and_comes_back(self, tmp_path):
        opinions = tuple(Opinion(f"s{s}", f"im{i:02}", s + i / 9, 0.1) for s in range(2) for i in range(9))
        asked = Analysis(rounds=200, margins={"up": 0.1}, noise={"down": 0.2}, worst="10%", opinions=opinions)
        got = replace(clear(), analysis=replace(asked, presets=(read_preset("ntire-sr-2026"),)))
        got.save(tmp_path / "r.json")
        again = load_results(tmp_path / "r.json")
        assert again == got
        assert again.to_json() == got.to_json()
        effect = json.loads(got.to_json())["inference"]["effects"][1][0]
        assert effect == json.loads(json.dumps(asdict(got.inference.effects[1][0])))

    def test_files_of_before_are_read(self, tmp_path):
        facts = clear().to_dict()
        del facts["analysis"], facts["inference"]
        assert Results.from_dict(json.loads(json.dumps(facts))).analysis == Analysis()

    def test_five_images_can_give_no_star(self):
        got = results(np.array([[[0.1] * 5], [[0.9, 0.8, 0.9, 0.8, 0.9]]]))
        text = render(got)
        assert "5 images can give no star: with 1 test it takes 6 or more, even if all agree" in text
        assert "percentile bootstrap" in text

    @pytest.mark.parametrize("count", [1, 2])
    def test_one_and_two_images(self, count):
        got = results(np.arange(4.0 * count).reshape(2, 2, count))
        assert ("1 image: no interval and no test" in render(got)) == (count == 1)
        assert ("intervals of fewer than 5 images are too narrow" in render(got)) == (count == 2)
        for form in ("md", "latex", "json", "summary-csv"):
            render(got, form)

    def test_identical_systems(self):
        got = results(np.full((3, 2, 24), 0.5))
        effect = got.inference.effects[1][0]
        assert (effect.difference, effect.bounds.low, effect.bounds.high, effect.bounds.method) == (0, 0, 0, "equal")
        assert (effect.p, effect.is_starred, effect.win_share) == (1, False, 0.5)
        assert "0 ±0" in render(got)

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("size", [1e200, 1e-200])
    def test_scores_whose_squares_are_no_numbers(self, size):
        values = np.random.default_rng(0).normal(size=(2, 1, 24))
        usual, scaled = (results(v).inference.effects[1][0] for v in (values, values * size))
        assert scaled.bounds.low / size == pytest.approx(usual.bounds.low)
        assert scaled.detectable / size == pytest.approx(usual.detectable)
        assert scaled.p == usual.p

    def test_gaps_are_left_out_as_in_means(self):
        values = np.random.default_rng(0).normal(size=(3, 2, 24))
        values[1, 0, 3] = values[2, 1] = np.nan
        got = results(values)
        assert got.inference.effects[2][1] is None
        for system, standing in enumerate(got.summary().standings[1:], 1):
            for cell, effect in zip(standing.cells, got.inference.effects[system], strict=True):
                assert effect is None or effect.difference == pytest.approx(cell.difference, abs=1e-12)
        assert got.inference.effects[1][0].units == 23
        assert got.inference.ranks[1][0] == pytest.approx(_ranks(values[:, 0])[:, 1].mean())
        nothing = results(np.full((2, 1, 3), np.nan))
        assert nothing.inference.family == 0
        render(nothing)


def _ranks(rows):
    filled = np.where(np.isnan(rows), -np.inf, rows).T
    return np.array([[1 + sum(o > v for o in row) for v in row] for row in filled])


class TestStars:
    def test_none_below_the_noise(self):
        got = clear()
        effect = got.inference.effects[1][0]
        noisy = replace(got, analysis=Analysis(rounds=1000, noise={"up": 2 * effect.difference}))
        assert not noisy.inference.effects[1][0].is_starred
        assert noisy.inference.effects[1][0].holm == effect.holm
        assert "no star, because a difference is below the critic's own noise: up" in render(noisy)

    def test_none_for_rounding(self):
        """A difference of a millionth in every image, in float32 scores, is none."""
        base = np.full((1, 1, 20), 0.5)
        got = results(np.concatenate([base, base + 1e-6]))
        assert got.inference.effects[1][0].holm < 0.05
        assert not got.inference.effects[1][0].is_starred
        more = results(np.concatenate([base, base + 1e-4]))
        assert more.inference.effects[1][0].is_starred
        low = replace(more, critics=(replace(more.critics[0], signature="up|trunk:bf16|perceptloss:1"),))
        assert not low.inference.effects[1][0].is_starred

    def test_tiles_are_a_noise_that_is_not_known(self):
        got = clear()
        column = replace(
            got.critics[0], signature="up|tile:512|perceptloss:1", card={"better": "higher", "tiling": "approximate"}
        )
        tiled = replace(got, critics=(column, got.critics[1]))
        assert "how far another cut would move it is not known: up;" in render(tiled)
        assert "another cut" not in render(replace(tiled, analysis=Analysis(rounds=1000, noise={"up": 0.001})))
        assert "another cut" not in render(got)

    def test_too_few_random_patterns_are_said(self):
        got = clear(systems=4)
        assert "with 6 tests it takes --rounds 119 or more" in render(replace(got, analysis=Analysis(rounds=118)))
        enough = replace(got, analysis=Analysis(rounds=119))
        assert "--rounds" not in render(enough)
        assert enough.inference.effects[3][0].is_starred

    def test_what_was_trained_on_is_not_tested(self):
        got = clear().with_roles({"up"})
        assert got.inference.family == 1
        assert got.inference.effects[1][0].holm is None
        assert "*" not in render(got).replace("**", "").split("not tested")[0]
        assert "up ↑†" in render(got)

    def test_holm_counts_every_test_shown(self):
        got = clear(systems=4)
        assert got.inference.family == 6
        raw = np.array([e.p for row in got.inference.effects for e in row if e])
        assert min(e.holm for row in got.inference.effects for e in row if e) == pytest.approx(6 * raw.min())


class TestGroups:
    def test_they_are_drawn_whole(self):
        got = clear()
        groups = {f"im{n:02}": f"scene{n // 4}" for n in range(24)}
        grouped = replace(got, analysis=Analysis(rounds=1000, groups=groups))
        effect = grouped.inference.effects[1][0]
        assert (effect.units, grouped.inference.unit) == (6, "group")
        assert effect.difference == pytest.approx(got.inference.effects[1][0].difference)
        gains = (got.array()[1, 0] - got.array()[0, 0])[:, None]
        (expected,) = bounds(Units.of(gains, np.arange(24) // 4), rounds=1000)
        assert (effect.bounds.low, effect.bounds.high) == pytest.approx((expected.low, expected.high))
        assert "6 groups of 24 images" in render(grouped)

    def test_from_names_and_from_a_file(self, tmp_path):
        keys = ["a/scene1_x", "a/scene1_y", "a/scene2_x"]
        assert read_groups(r"scene\d", keys) == {k: k[2:8] for k in keys}
        assert read_groups(r"scene(\d)_", keys)[keys[2]] == "2"
        path = tmp_path / "g.csv"
        path.write_text("image,group\na/scene1_x.png,one\na/scene1_y,one\na/scene2_x,two\nelse,three\n")
        assert read_groups(str(path), keys) == dict(zip(keys, ("one", "one", "two"), strict=True))

    def test_an_expression_that_never_ends(self, monkeypatch):
        monkeypatch.setattr(strip, "SECONDS", 1)
        with pytest.raises(ConfigError, match="not done with 2 names in 1 s"):
            read_groups("(a+)+b", ["a" * 40, "a" * 41])

    @pytest.mark.parametrize(
        ("source", "problem"),
        [
            (r"scene[", "regular expression"),
            (r"scene2", "no group for 'a/scene1_x', 'a/scene1_y'"),
            (r"scene", "all 3 images are in the group 'scene'"),
            (r"(s)*", "all 3|no group"),
            ("image,group\na/scene1_x,1\na/scene1_x,2\n", "in two groups"),
            ("image,group\na/scene1_x,1\n", "no group for 'a/scene1_y'"),
            ("image,grop\na/scene1_x,1\n", "header lacks 'group'; did you mean 'grop'"),
            ("image,group\na/scene1_x\n", "expected 2 cells as in the header, got another number in line 2"),
            ("image,group,group\na,b,c\n", "twice: 'group'"),
            ("image,group\n", "at least one row"),
        ],
    )
    def test_wrong_groups(self, tmp_path, source, problem):
        if "," in source:
            (tmp_path / "g.csv").write_text(source)
            source = str(tmp_path / "g.csv")
        with pytest.raises(ConfigError, match=problem):
            read_groups(source, ["a/scene1_x", "a/scene1_y", "a/scene2_x"])


NTIRE = {
    "lpips": "lower",
    "dists": "lower",
    "clipiqa": "higher",
    "maniqa": "higher",
    "musiq": "higher",
    "niqe": "lower",
}


class TestPresets:
    def scores(self, niqe=(4.0, 12.0)):
        rows = [[[0.2, 0.3], [0.1, 0.1], [0.6, 0.8], [0.4, 0.5], [60.0, 70.0], [n, n + 1]] for n in niqe]
        return results(np.array(rows), critics=NTIRE)

    @pytest.mark.parametrize("name", ["ntire-sr-2025", "ntire-sr-2026"])
    def test_ntire_by_hand(self, name):
        got = replace(self.scores(), analysis=Analysis(rounds=200, presets=(read_preset(name),)))
        (found,) = got.inference.presets
        rest = (1 - 0.25) + (1 - 0.1) + 0.7 + 0.45 + 65 / 100
        assert found.values == pytest.approx((rest + (10 - 4.5) / 10, rest))  # a NIQE above 10 counts 0
        assert found.differences[1] == pytest.approx(-0.55)
        assert f"{name} ↑" in render(got)

    def test_a_run_may_fail_by_one(self):
        got = replace(self.scores(), analysis=Analysis(rounds=200, presets=(read_preset("ntire-sr-2026"),)))

        def failures(text, results=got):
            return check_thresholds(results, parse_thresholds([text], ["ntire-sr-2026"], has_baseline=True))

        assert failures("ntire-sr-2026 < 3.9") == ["s1: mean of ntire-sr-2026 is 3.45 (ntire-sr-2026 < 3.9)"]
        assert failures("ntire-sr-2026 < 3.4") == failures("ntire-sr-2026 < -0.6") == []
        (said,) = failures("ntire-sr-2026 < -0.5")
        assert said.startswith("s1: difference to the baseline of ntire-sr-2026 is -0.55")
        part = replace(got, critics=got.critics[:4], values=tuple(rows[:4] for rows in got.values))
        assert len(failures("ntire-sr-2026 < 0", part)) == 2  # what has no score is not fine

    def test_averaged_scores_not_averages_of_scores(self):
        """One image of NIQE 16 and one of 6: max(0, (10 - 11) / 10) = 0, not the mean of 0 and 0.4."""
        got = results(np.array([[[16.0, 6.0]]]), critics={"niqe": "lower"})
        preset = read_preset("ntire-sr-2026")
        only = replace(preset, terms=preset.terms[-1:])
        assert replace(got, analysis=Analysis(presets=(only,))).inference.presets[0].values == (0,)

    def test_a_missing_critic_is_a_named_gap(self):
        got = self.scores()
        part = replace(got, critics=got.critics[:4], values=tuple(rows[:4] for rows in got.values))
        preset = replace(read_preset("ntire-sr-2026"), gaps={"musiq": "no weights"})
        got = replace(part, analysis=Analysis(presets=(preset,)))
        assert got.inference.presets[0].values == (None, None)
        text = render(got)
        assert "ntire-sr-2026: no score, because these are not here: musiq (no weights); niqe" in text
        assert "n/a" in text.splitlines()[2]

    def test_a_system_without_scores_is_a_gap_too(self):
        got = self.scores(niqe=(np.nan, 5.0))
        got = replace(got, analysis=Analysis(presets=(read_preset("ntire-sr-2025"),)))
        assert got.inference.presets[0].missing == ("niqe (no score of s0)",)

    def test_one_of_your_own(self, tmp_path):
        path = tmp_path / "mine.toml"
        path.write_text(
            'about = "a"\nsource = "s"\nbetter = "lower"\n[[term]]\ncritic = "up"\nscale = -2\nmost = -1.5\n'
            '[[term]]\ncritic = "down"\noffset = 1\n'
        )
        got = replace(clear(), analysis=Analysis(rounds=1000, presets=(read_preset(str(path)),)))
        (found,) = got.inference.presets
        means = got.array().mean(axis=2)
        expected = np.minimum(-2 * means[:, 0], -1.5) + 1 + means[:, 1]
        assert found.values == pytest.approx(tuple(expected))
        assert found.bounds[1].low <= found.differences[1] <= found.bounds[1].high
        rows = list(csv.DictReader(io.StringIO(render(got, "summary-csv"))))[-2:]
        assert [(row["system"], row["critic"], float(row["mean"])) for row in rows] == [
            (system, "mine", value) for system, value in zip(got.systems, found.values, strict=True)
        ]
        assert "mine ↓" in render(got)

    @pytest.mark.parametrize(
        ("text", "problems"),
        [
            ("about = ", ["not TOML"]),
            (
                'abut = "x"\nbetter = "up"',
                ["unknown key 'abut'; did you mean 'about'", "'source' is missing", "got 'up'"],
            ),
            ('about="a"\nsource="s"\nbetter="lower"\nterm=[]', ["one or more tables"]),
            (
                'about="a"\nsource="s"\nbetter="lower"\n[[term]]\ncritic="x"\nscale=nan\nskale=1\n[[term]]\ncritic="x"\nscale=0',
                [
                    "term 1: 'scale' must be a finite number",
                    "term 1: unknown key 'skale'",
                    "term 2: 'scale' must not",
                    "'x' is there twice",
                ],
            ),
        ],
    )
    def test_wrong_files(self, tmp_path, text, problems):
        (tmp_path / "p.toml").write_text(text)
        with pytest.raises(ConfigError) as error:
            read_preset(str(tmp_path / "p.toml"))
        assert [p for p in problems if p not in str(error.value)] == []

    def test_names(self):
        assert preset_names() == ["ntire-sr-2025", "ntire-sr-2026"]
        with pytest.raises(ConfigError, match="did you mean 'ntire-sr-2026'"):
            read_preset("ntire-sr-2026x")
        with pytest.raises(ConfigError, match="No such file"):
            read_preset("nowhere.toml")


class TestExternal:
    def read(self, tmp_path, text, **options):
        path = tmp_path / "s.csv"
        path.write_text(text, encoding="utf-8")
        return read_scores(path, ("a", "b"), ("x", "y"), **options)

    def test_columns_of_equal_right(self, tmp_path):
        part = self.read(
            tmp_path,
            "system,image,vmaf:higher,judge ↓,plain\na,x.png,90,1,5\na,y,80,2,6\nb,x,95,1,7\nb,y,70,3,8\n",
            better={"plain": "lower"},
        )
        assert [(c.label, c.is_higher_better) for c in part.columns] == [
            ("vmaf", True),
            ("judge", False),
            ("plain", False),
        ]
        got = results(np.ones((2, 1, 2)), ("a", "b"))
        got = replace(got, images=tuple(ImageRecord(k, (None, None)) for k in "xy"))
        joined = join_scores(got, [part])
        assert joined.scores("b", "vmaf") == (95, 70)
        assert joined.inference.family == 4
        assert joined.summary().standings[1].cells[1].mean == 82.5
        assert "vmaf ↑" in render(joined) and "vmaf|external|sha256:" in render(joined)

    def test_own_files_are_read_back(self, tmp_path):
        got = clear()
        path = tmp_path / "own.csv"
        got.save(path)
        keys = [image.key for image in got.images]
        part = read_scores(path, got.systems, keys, better=NAMES)
        assert part.values == got.values

    def test_missing_scores_are_refused_or_flagged(self, tmp_path):
        text = "system,image,vmaf:higher\na,x,90\na,y,\nb,x,95\nc,x,1\n"
        with pytest.raises(ConfigError) as error:
            self.read(tmp_path, text)
        assert "no score of b/y, a/y (vmaf:higher)" in str(error.value)
        assert "not among the outputs that are compared: c/x" in str(error.value)
        part = self.read(tmp_path, text, allow_missing=True)
        assert part.values == (((90, None),), ((95, None),))
        got = results(np.ones((2, 1, 2)), ("a", "b"))
        got = replace(got, images=tuple(ImageRecord(k, (None, None)) for k in "xy"))
        joined = join_scores(got, [part])
        assert [(f.kind, f.system, f.image, f.critic) for f in joined.flags] == [
            ("not-finite", "a", "y", "vmaf"),
            ("not-finite", "b", "y", "vmaf"),
        ]

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("system,image,vmaf\na,x,1\na,y,1\nb,x,1\nb,y,1\n", "direction of 'vmaf' is not stated: write vmaf:higher"),
            ("system,image,vmaf:higher\na,x,1\na,x,2\na,y,1\nb,x,1\nb,y,1\n", "line 3: a/x is there twice"),
            ("system,image,vmaf:higher\na,x,good\na,y,1\nb,x,1\nb,y,inf\n", "line 2: vmaf:higher must be a number"),
            ("system,image,up:higher\na,x,1\na,y,1\nb,x,1\nb,y,1\n", "'up' is there twice"),
            ("system,image\na,x\na,y\nb,x\nb,y\n", "no column of scores"),
            ("image,vmaf:higher\nx,1\ny,1\n", "header lacks 'system'"),
            ('system,image,vmaf:higher\na,"x\n', "cannot be read as CSV"),
        ],
    )
    def test_wrong_files(self, tmp_path, text, problem):
        with pytest.raises(ConfigError, match=problem):
            self.read(tmp_path, text, taken=["up"])

    def test_bytes_that_are_no_text(self, tmp_path):
        (tmp_path / "s.csv").write_bytes(b"image,\xff\xfe\n1,2\n")
        with pytest.raises(ConfigError, match="UTF-8"):
            read_scores(tmp_path / "s.csv", ("a",), ("x",))


class TestWorst:
    def test_means_of_the_worst(self):
        values = np.array([[[1.0, 2, 3, 4], [1, 2, 3, 4]], [[4.0, 3, 2, 2.5], [0, 0, 0, 8]]])
        got = replace(results(values), analysis=Analysis(rounds=500, worst="2"))
        (base_up, base_down), (up, down) = got.inference.worst
        assert (base_up.mean, base_up.images) == (1.5, ("im00", "im01"))
        assert (up.mean, up.images, up.difference) == (2.25, ("im02", "im03"), 0.75)
        assert (base_down.mean, down.mean, down.images[0]) == (3.5, 4, "im03")
        assert up.bounds.low <= up.difference <= up.bounds.high
        assert "mean of the worst 2 images of 4, each system's own" in render(got)

    def test_all_of_them_are_the_mean(self):
        got = replace(clear(), analysis=Analysis(rounds=1000, worst="99%"))
        pool, effect = got.inference.worst[1][0], got.inference.effects[1][0]
        assert pool.mean == pytest.approx(got.summary().standings[1].cells[0].mean)
        gains = got.array()[1, 0] - got.array()[0, 0]
        low, high = np.quantile(Units.of(gains[:, None]).drawn(1000, 0), (0.025, 0.975))
        assert (pool.bounds.low, pool.bounds.high) == pytest.approx((low, high))
        assert effect.difference == pytest.approx(pool.difference)

    @pytest.mark.parametrize(
        ("worst", "images", "count"), [("3", 10, 3), ("30", 10, 10), ("5%", 10, 1), ("12.5%", 24, 3)]
    )
    def test_how_many(self, worst, images, count):
        assert Analysis(worst=worst).worst_count(images) == count


def test_wrong_options_are_all_listed():
    with pytest.raises(ConfigError) as error:
        Analysis(rounds=5, seed=-1, level=1.5, noise={"a": -1}, margins={"b": 0}, worst="0")
    assert "6 problems" in str(error.value)
    with pytest.raises(ConfigError, match="noise of 'upp', which is not one of the critics; did you mean 'up'"):
        replace(clear(), analysis=Analysis(noise={"upp": 1}))
    with pytest.raises(ConfigError, match="no group for"):
        replace(clear(), analysis=Analysis(groups={"im00": "a"}))
    with pytest.raises(ConfigError, match="opinions of what is not compared: s0/else"):
        replace(clear(), analysis=Analysis(opinions=(Opinion("s0", "else", 1.0),)))
    with pytest.raises(ConfigError, match="needs two systems"):
        results(np.ones((1, 1, 3)), analysis=Analysis(margins={"up": 1}))


class TestDetails:
    def test_five_systems_get_a_critical_difference(self):
        got = replace(clear(systems=5), analysis=Analysis(rounds=200, details=True))
        assert got.inference.friedman.p < 0.001
        text = render(got)
        assert "Friedman over 24 images: chi-squared" in text
        assert "Bradley-Terry strengths" in text and "some never lose" not in text
        only = replace(results(got.array()[:, :1]), analysis=Analysis(rounds=200, details=True))
        assert "some never lose to the others" in render(only)
        assert "tests against s0, by image" in text
        assert clear(systems=4).inference.friedman is None
        strengths = got.inference.strengths.values
        assert strengths[4] == max(strengths)
        assert "\n\nBradley-Terry strengths\n\n|" in render(got, "md")
        assert render(got, "latex").count(r"\begin{tabular}") == 4

    def test_one_vote_of_an_image_is_shared_by_its_critics(self):
        """A critic that is there twice adds no certainty."""
        got = clear()
        once = results(got.array()[:, :1])
        twice = results(np.repeat(got.array()[:, :1], 2, axis=1), critics={"up": "higher", "too": "higher"})
        assert twice.inference.strengths == once.inference.strengths

    def test_systems_without_a_common_critic(self):
        values = np.full((4, 2, 6), np.nan)
        values[:2, 0] = values[2:, 1] = 0.5
        assert results(values).inference.strengths.parts == ((0, 1, 2, 3),), "a missing score loses to any"

    def test_equivalence_is_said(self):
        got = clear()
        near = replace(got, analysis=Analysis(rounds=200, margins={"up": 0.2, "down": 1e-4}))
        text = render(near)
        assert "s1 and s0 are equivalent under up within ±0.2 (two one-sided t-tests, p < 0.001)" in text
        assert "s1 and s0 are not shown to be equivalent under down within ±0.0001" in text


class TestOpinions:
    def opinions(self, got, noise=0.02, half=0.01):
        random = np.random.default_rng(3)
        scores = got.array()[:, 0]
        return tuple(
            Opinion(s, image.key, float(scores[n, i] + noise * random.normal()), half)
            for n, s in enumerate(got.systems)
            for i, image in enumerate(got.images)
        )

    def test_who_agrees_with_people(self):
        got = clear()
        got = replace(got, analysis=Analysis(rounds=200, opinions=self.opinions(got)))
        up, down = got.inference.agreement.critics
        assert up.figures["srcc"].value > 0.9 and up.count == 48
        assert down.figures["srcc"].value < 0, "lower is better, and it follows what is better"
        assert up.figures["pairs within images"].value > 0.9
        assert up.figures["cci"].value >= up.figures["pairs"].value
        (comparison,) = got.inference.agreement.comparisons
        assert (comparison.first, comparison.second) == ("up", "down")
        assert comparison.holm < 0.001
        text = render(got)
        assert "agreement with people on 48 outputs" in text
        assert "does one critic agree better than another?" in text

    def test_what_is_not_defined_is_said(self):
        got = results(np.ones((2, 2, 6)))
        opinions = tuple(Opinion(s, f"im{n:02}", float(n)) for s in got.systems for n in range(6))
        got = replace(got, analysis=Analysis(rounds=200, opinions=opinions))
        assert got.inference.agreement.critics[0].figures["srcc"] is None
        assert "up: no srcc: pred is constant" in render(got)
        assert got.inference.agreement.comparisons == ()
        json.loads(got.to_json())

    def test_files(self, tmp_path):
        path = tmp_path / "mos.csv"
        path.write_text("image,system,dmos,std,votes,who\nx.png,a,2,1.5,9,me\nx,b,3,1.5,4,me\n")
        first, second = read_opinions(path, ("a", "b"), ("x",))
        assert (first, second.quality) == (Opinion("a", "x", -2.0, pytest.approx(0.98)), -3)
        path.write_text("image,mos,ci\nx,2,0.5\n")
        assert read_opinions(path, ("a",), ("x",)) == (Opinion("a", "x", 2.0, 0.5),)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("image,system\nx,a\n", "one column mos or dmos, got 0"),
            ("image,system,mos,dmos\nx,a,1,2\n", "one column mos or dmos, got 2"),
            ("image,system,mos\nx,a,good\n", "line 2: mos must be a finite number, got 'good'"),
            ("image,system,mos\nx,a,1\nx,a,2\n", "line 3: a/x is there twice"),
            ("image,system,mos\nz,a,1\n", "not among the outputs that are compared: a/z"),
            ("image,system,mos,ci\nx,a,1,-1\n", "ci must be at least 0"),
            ("image,system,mos,std\nx,a,1,1\n", "std and votes are needed together"),
            ("image,mos\nx,1\n", "header lacks 'system'"),
        ],
    )
    def test_wrong_files(self, tmp_path, text, problem):
        (tmp_path / "mos.csv").write_text(text)
        with pytest.raises(ConfigError, match=problem):
            read_opinions(tmp_path / "mos.csv", ("a", "b"), ("x",))


class TestCommand:
    @pytest.fixture
    def command(self, toys, folder, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        random = np.random.default_rng(0)
        for name, shift in (("one", 0), ("two", 20), ("gt", 0)):
            folder(name, **{f"s{n % 4}_{n}": int(random.integers(60, 100)) + shift for n in range(12)})
        return ["compare", "one", "two", "--ref", "gt", "-c", "toy-light", "--rounds", "500"]

    def write(self, name, header, rows):
        with open(name, "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])

    def outputs(self):
        return [(f"s{n % 4}_{n}", system) for n in range(12) for system in ("one", "two")]

    def test_everything_together(self, command, capsys):
        self.write("vmaf.csv", ["image", "system", "vmaf"], [(*o, n) for n, o in enumerate(self.outputs())])
        self.write("mos.csv", ["image", "system", "mos"], [(*o, n % 5) for n, o in enumerate(self.outputs())])
        asked = ["--scores-from", "vmaf.csv", "--better", "vmaf=higher", "--mos", "mos.csv", "--group", r"s\d"]
        asked += ["--equivalent", "vmaf=3", "--noise", "toy-light=0.01", "--worst", "25%", "--details", "--seed", "4"]
        assert main([*command, *asked, "--fail-if", "vmaf > 1e6", "--output", "all.json"]) == 0
        out = capsys.readouterr().out
        assert "4 groups of 12 images · baseline one" in out
        assert "seed 4" in out
        assert "agreement with people on 24 outputs" in out
        got = load_results("all.json")
        assert [column.label for column in got.critics] == ["toy-light", "vmaf"]
        assert got.inference.effects[1][0].noise == 0.01
        assert render(got) == out
        assert main([*command, *asked, "--fail-if", "vmaf > 1"]) == 4

    def test_a_preset_brings_its_critics_and_names_its_gaps(self, command, capsys):
        assert main([*command, "--preset", "ntire-sr-2026", "--random-weights", "--dry-run"]) == 2
        assert "maniqa" in capsys.readouterr().err, "too small for it"
        terms = "".join(f'[[term]]\ncritic = "{name}"\n' for name in ("toy-light", "toy-error", "nobody", "musiq"))
        Path("mine.toml").write_text(f'about = "a"\nsource = "s"\nbetter = "higher"\n{terms}')
        self.write("m.csv", ["image", "system", "musiq:higher"], [(*o, 1) for o in self.outputs()])
        alone = [part for part in command if part not in ("-c", "toy-light")]
        assert main([*alone, "--preset", "mine.toml", "--scores-from", "m.csv"]) == 0
        out, err = capsys.readouterr()
        assert "nobody: not a critic of perceptloss; --scores-from may bring it, as nobody:higher" in err
        assert "mine: no score, because these are not here: nobody (not a critic of perceptloss" in out
        assert out.splitlines()[1].split()[1:9:2] == ["toy-light", "toy-error", "musiq", "mine"]
        assert main([*alone, "--preset", "mine.toml", "--scores-from", "m.csv", "--fail-if", "mine < 0"]) == 4
        assert "one: mine has no mean (mine < 0)" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("flags", "problems"),
        [
            (
                ["--noise", "toy-light", "--equivalent", "x=y", "--better", "v=up"],
                ["--noise: expected", "--equivalent: expected", "--better: expected"],
            ),
            (["--noise", "toy-lite=1"], ["did you mean 'toy-light'"]),
            (["--better", "v=higher"], ["--better v: no such column"]),
            (["--rounds", "3", "--worst", "x"], ["rounds must be", "worst must be"]),
            (["--mos", "nowhere.csv"], ["No such file"]),
            (["--group", "q"], ["no group for"]),
            (["--preset", "ntire"], ["no preset 'ntire'"]),
            (["--scores-from", "nowhere.csv"], ["No such file"]),
        ],
    )
    def test_what_is_wrong_is_found_before_the_first_score(self, command, capsys, toys, flags, problems):
        assert main([*command, *flags]) == 2
        err = capsys.readouterr().err
        assert [problem for problem in problems if problem not in err] == []
        assert toys.scored == 0

    def test_a_critic_is_still_needed(self, command, capsys):
        assert main([part for part in command if part not in ("-c", "toy-light")]) == 2
        assert "no critic given" in capsys.readouterr().err

    def test_score_takes_them_too(self, command, capsys):
        self.write("mos.csv", ["image", "mos"], [(f"s{n % 4}_{n}", n % 5) for n in range(12)])
        assert main(["score", "one", "-c", "toy-light", "--mos", "mos.csv", "--worst", "2", "--group", r"s\d"]) == 0
        out = capsys.readouterr().out
        assert "agreement with people on 12 outputs" in out
        assert "mean of the worst 2 images of 12" in out
        assert main(["score", "one", "-c", "toy-light", "--equivalent", "toy-light=1"]) == 2
