"""What a report says, draws and embeds."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from math import nan

import numpy as np
import pytest
from made import DISTANCE, LIGHT, made, random_results
from PIL import Image
from png16 import png16

from perceptloss import get_card
from perceptloss.cli.main import main
from perceptloss.compare import Pairing, Settings, compare, load_results, score_pairs
from perceptloss.compare.images import ImageFile
from perceptloss.compare.pages import window
from perceptloss.compare.report import report_html, write_report
from perceptloss.compare.report.answer import answer, redundancy
from perceptloss.compare.report.choice import RANDOM, choose
from perceptloss.compare.report.crops import shots
from perceptloss.compare.report.heat import clustered, critic_agreement, heat, win_matrices
from perceptloss.compare.report.learned import overlaps
from perceptloss.compare.report.plane import planes
from perceptloss.compare.report.roles import gains_of, roles
from perceptloss.compare.report.waterfall import waterfalls
from perceptloss.compare.statistics.significance import wilson

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}</script>"


class Tags(HTMLParser):
    """All elements with their attributes, and the text of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    handle_startendtag = handle_starttag

    def handle_data(self, data):
        if self.found and self.found[-1][0] == "script" and self.rawdata:
            self.scripts[-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.found if name == tag]


@pytest.fixture
def compared(folder, noise, tmp_path, toys):
    """A comparison of files: noise of growing strength on four pictures of 300x320."""
    for n in range(4):
        clean = noise((300, 320, 3), n) // 2 + 60
        for name, strength in (("gt", 0), ("a", 8), ("b", 24)):
            (tmp_path / name).mkdir(exist_ok=True)
            dirty = clean.astype(int) + strength * (noise(clean.shape, 10 + n) // 128)
            Image.fromarray(dirty.clip(0, 255).astype(np.uint8)).save(tmp_path / name / f"p{n}.png")
    return compare({"a": tmp_path / "a", "b": tmp_path / "b"}, tmp_path / "gt", ["toy-error", "toy-light"])


class TestAnswer:
    def test_names_the_order_the_gains_and_their_intervals(self):
        said = answer(random_results())
        assert said[0].startswith("By mean rank over 24 images and 2 critics: third (")
        assert re.search(r"third is better by toy-error \(−0\.\d+ ±0\.\d+\) and toy-light \(\+0\.\d+ ±", said[2])

    def test_says_where_critics_disagree(self):
        generator = np.random.default_rng(0)
        base = generator.normal(0, 1, (2, 24))
        said = answer(made([base, base + 0.5 + generator.normal(0, 0.1, (2, 24))]))
        assert "better by toy-light (" in said[1] and ", but worse by toy-error (" in said[1]
        assert said[1].endswith(": the critics disagree.")

    def test_no_star_is_no_equality(self):
        generator = np.random.default_rng(1)
        said = answer(made(generator.normal(0, 1, (2, 2, 12))))
        assert said[1].startswith("No critic shows a difference between other and base")
        assert said[1].endswith("That is not equality.")

    def test_a_trained_critic_is_no_evidence(self):
        said = answer(random_results(systems=2).with_roles(["toy-error"]))
        assert "toy-error" not in said[1]
        assert said[2] == "Systems were trained on toy-error: what these say is no evidence."

    def test_one_system_gets_its_means(self):
        said = answer(made([[[0.1, 0.3], [0.5, 0.7]]], systems=("only",)))
        assert len(said) == 1 and said[0].startswith("only, means over 2 images: toy-error ↓ 0.2000 [")

    def test_alike_critics_are_one_vote(self):
        values = np.array([[[1.0, 2, 3], [-1, -2, -3]], [[2.0, 1, 4], [-2, -1, -4]]])
        results = made(values)
        alike = critic_agreement(results.arrays())
        assert alike[0][1] == 1.0
        assert list(redundancy(results, alike)) == [
            "toy-error and toy-light order 100 % of all pairs of outputs alike: count them as one vote."
        ]


def ranks_of(results):
    return heat(results, results.arrays(), critic_agreement(results.arrays()))


class TestOverlaps:
    def test_a_folder_that_is_called_like_what_a_critic_learned_from(self):
        told = {name: replace(LIGHT, label=name, card=get_card(name).to_dict()) for name in ("ahiq", "mini-fr", "ssim")}
        results = made(np.ones((2, 3, 4)), list(told.values()))

        def named(base, ref):
            inputs = {"base": {"path": f"/data/{base}/out"}, "reference": {"path": ref}}
            return [text.split(" among")[0] for text in overlaps(replace(results, provenance={"inputs": inputs}))]

        assert named("pipal_val", "/sets/CID22/gt") == ["ahiq names PIPAL", "mini-fr names CID22"]
        assert named("my-pipal", "relive") == ["ahiq names PIPAL"] and named("a", "b") == []
        page = report_html(replace(results, settings={"sources": {"base": "x/PIPAL"}}), embed="none")
        assert "a folder of these pictures is called so" in page


class TestTables:
    def test_heat_has_mean_ranks_and_the_best_is_strongest(self):
        results = made([[[1.0, 1, 1, 1]], [[2.0, 2, 2, 0]], [[3.0, 3, 3, 3]]], systems=("a", "b", "c"))
        row = ranks_of(results)[0]
        assert [cell.text for cell in row.cells] == ["1.25", "1.75", "3.00"]
        assert row.cells[2].shade == 0 and row.cells[0].shade > row.cells[1].shade

    def test_places_are_tied_where_intervals_overlap(self):
        base = np.zeros(20)
        surely, hardly = base + np.r_[np.ones(19), -1], base + np.r_[np.ones(11), -np.ones(9)] / 2
        results = made([[base], [surely], [hardly]], [LIGHT], systems=("a", "b", "c"))
        (row,) = ranks_of(results)
        assert [cell.more for cell in row.cells] == ["2–3", "1", "2–3"]
        few = made([[base[:2]], [surely[:2]]], [LIGHT], systems=("a", "b"))
        assert [cell.more for cell in ranks_of(few)[0].cells] == ["1–2", "1–2"]  # two images show nothing
        assert "<small>(2–3)</small>" in report_html(results)
        lost = made([[base], [surely], [base * np.nan]], [LIGHT], systems=("a", "b", "c"))
        assert [(cell.text, cell.more) for cell in ranks_of(lost)[0].cells][2] == ("3.00", "1–3")

    def test_critics_that_agree_stand_together_with_their_domains(self):
        agreement = [[1, 0.6, 0.5, 0.9], [0.6, 1, 0.95, 0.6], [0.5, 0.95, 1, None], [0.9, 0.6, None, 1]]
        assert clustered(agreement) == [0, 3, 1, 2] and clustered([[None]]) == [0]
        first, other = random_results(critics=1).values[:2]
        sea = replace(LIGHT, label="sea", card={**LIGHT.card, "domains": ["underwater"]})
        columns = (LIGHT, replace(LIGHT, label="odd"), sea)
        results = made([[row, np.negative(row), row] for (row,) in (first, other)], columns)
        assert [row.name for row in ranks_of(results)] == ["toy-light ↑", "sea ↑ · underwater", "odd ↑"]

    def test_wins_are_shares_with_wilson_intervals(self):
        base, other = np.zeros(20), np.r_[np.ones(15), -np.ones(4), 0]
        results = made([[base], [other]], [LIGHT])
        (matrix,) = win_matrices(results, results.arrays())
        cell = matrix.rows[1].cells[0]
        low, high = wilson(15.5 / 20, 20)
        assert cell.value == 15.5 / 20 and cell.more == f"{100 * low:.0f}–{100 * high:.0f}" and cell.gain == 1
        assert matrix.rows[0].cells[1].gain == -1 and matrix.rows[0].cells[0].text == ""

    def test_agreement_leaves_out_ties(self):
        results = made([[[1.0, 1, 1, 1], [1, 1, 1, 1]], [[0.0, 0, 2, 1], [2, 2, 2, 2]]])  # lower, higher is better
        assert critic_agreement(results.arrays())[0][1] == pytest.approx(2 / 3)


class TestDrawings:
    def test_the_plane_is_better_to_the_lower_left(self):
        results = random_results(critics=3)
        for plane in planes(results, results.arrays()):
            x, y = ([point.x for point in plane.points], [point.y for point in plane.points])
            assert x == sorted(x, reverse=True) and y == sorted(y)
            assert [point.is_best for point in plane.points] == [False, False, True]

    def test_the_pareto_line_goes_through_all_that_none_beats(self):
        means = [[1.0, 0.1], [2.0, 0.5], [3.0, 0.9], [3.5, 0.5]]  # lower, higher is better
        values = np.array(means)[:, :, None] + np.zeros((4, 2, 3))
        results = made(values, systems=("a", "b", "c", "d"))
        (plane,) = planes(results, results.arrays())
        assert [point.is_best for point in plane.points] == [True, True, True, False]
        assert all(f"{p.x:g} {p.y:g}" in plane.front for p in plane.points if p.is_best)

    def test_a_single_image_has_no_ellipse(self):
        results = made([[[1.0], [2]], [[2.0], [3]]])
        (plane,) = planes(results, results.arrays())
        assert [point.ellipse for point in plane.points] == ["", ""]

    def test_an_ellipse_covers_its_level_of_resampled_means(self):
        results = random_results(images=60, systems=1)
        (plane,) = planes(results, results.arrays())
        ring = np.array([[float(n) for n in p.split()] for p in re.findall(r"[\d.]+ [\d.]+", plane.points[0].ellipse)])
        rows = results.arrays().values[0]
        cov = np.cov(rows) / 60
        width = np.ptp(ring[:, 0])
        axis = [t.place for t in plane.x_ticks]
        values = [float(t.text.replace("−", "-")) for t in plane.x_ticks]
        across = abs(axis[-1] - axis[0]) / abs(values[-1] - values[0])  # dots of a unit
        column = 0 if "toy-error" in plane.across else 1
        assert width / across == pytest.approx(2 * 2.448 * cov[column, column] ** 0.5, rel=0.1)

    def test_a_waterfall_is_sorted_and_links_to_what_is_shown(self):
        values = np.array([[[0.0, 0, 0, 0]], [[0.2, -0.3, 0.1, 0]]])
        results = made(values, [DISTANCE])
        (fall,) = waterfalls(results, results.arrays(), {"image 001": 7})
        assert fall.order == (0, 2, 3, 1)  # worst first; lower is better
        assert "better on 1, worse on 2 and equal on 1 of 4 images" in fall.caption
        assert fall.losses.count("M") == 2 and fall.gains.count("M") == 1
        assert [(link.key, link.number) for link in fall.links] == [("image 001", 7)]

    def test_roles_tell_what_only_trained_critics_see(self):
        generator = np.random.default_rng(0)
        base = generator.normal(0, 1, (2, 200))
        values = [base, base + np.array([[-2.0], [0.0]])]  # 2 better by the distance, as good by the other
        results = made(values).with_roles(["toy-error"])
        trained, watching = gains_of(results, results.arrays())
        assert trained.is_trained and trained.gain == pytest.approx(2 / base[0].std()) and watching.gain == 0
        drawing = roles(results, results.arrays())
        assert drawing is not None and "a gap of +" in drawing.sentences[0]
        assert roles(made(values), made(values).arrays()) is None


class TestChoice:
    def test_finds_the_loss_and_the_disagreement(self):
        generator = np.random.default_rng(0)
        base = generator.normal(0, 1, (2, 40))
        other = base + generator.normal(0, 0.05, (2, 40))
        other[0, 3] += 4  # lower is better
        other[1, 3] -= 4
        other[0, 9] -= 5
        other[1, 9] -= 5
        found = {choice.image: choice.reasons for choice in choose(made([base, other]).arrays())}
        assert "other loses most to base" in found[3]
        assert "critics disagree most" in found[9]

    def test_ten_that_tell_most_and_a_sample_that_says_so(self):
        scores = random_results(images=100).arrays()
        found = choose(scores)
        drawn = [choice for choice in found if choice.reasons == (RANDOM,)]
        assert len(found) == 15 and len(drawn) == 5 and len({choice.image for choice in found}) == 15
        assert found == choose(scores) != choose(scores, seed=1)

    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_few_images_are_all_shown_once(self, count):
        found = choose(random_results(images=count).arrays())
        assert sorted(choice.image for choice in found) == list(range(count))

    def test_equal_scores_give_nothing_to_tell(self):
        found = choose(made(np.ones((2, 2, 9))).arrays())
        assert all(choice.reasons == (RANDOM,) for choice in found) and len(found) == 5


class TestPictures:
    def test_are_the_pixels_of_the_files(self, compared, tmp_path):
        for shot in shots(compared, choose(compared.arrays())):
            left, top, wide, tall = shot.box
            assert (wide, tall) == (256, 256) and [pane.name for pane in shot.panes] == ["a", "b", "reference"]
            for pane, name in zip(shot.panes, ("a", "b", "gt"), strict=True):
                data = base64.b64decode(pane.url.partition(",")[2])
                whole = np.asarray(Image.open(tmp_path / name / f"{shot.key}.png"))
                crop = whole[top : top + tall, left : left + wide]
                assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), crop)

    def test_whole_or_none(self, compared):
        chosen = choose(compared.arrays())
        assert {pane.width for shot in shots(compared, chosen, "whole") for pane in shot.panes} == {320}
        assert all(not shot.panes and "--embed none" in shot.problem for shot in shots(compared, chosen, "none"))

    def test_crops_shrink_to_the_budget_around_their_middle(self, compared, monkeypatch):
        chosen = choose(compared.arrays())
        large = shots(compared, chosen)
        monkeypatch.setattr("perceptloss.compare.report.crops._BUDGET", 400_000)
        small = shots(compared, chosen)
        for one, other in zip(large, small, strict=True):
            assert other.box[2] < one.box[2]
            assert other.box[0] + other.box[2] // 2 == one.box[0] + one.box[2] // 2
            assert other.panes[0].width == other.box[2]

    def test_lie_where_pictures_differ_most(self):
        one = np.zeros((100, 120, 3), np.uint8)
        other = one.copy()
        other[60:70, 90:100] = 255
        left, top, wide, tall = window([one, other], 32)
        assert left <= 90 and left + wide >= 100 and top <= 60 and top + tall >= 70
        assert window([one, one], 32) == (44, 34, 32, 32)
        assert window([one, other], 500) == (0, 0, 120, 100)

    def test_maps_lie_beside_them_in_the_same_colours(self, compared, tmp_path):
        """Of a critic without a map, attribution: it is as large as the image, and ends where the border begins."""
        page = tmp_path / "page.html"
        systems = [f"{name}={tmp_path / name}" for name in "ab"]
        args = ["--ref", str(tmp_path / "gt"), "-c", "toy-error", "--crop-border", "4", "--embed", "whole", "--quiet"]
        assert main(["compare", *systems, *args, "--report", str(page), "--map", "toy-error"]) == 0
        text = page.read_text("utf-8")
        assert "toy-error, attribution, its shares of the score less the reference&#39;s: -" in text
        found = re.findall(r'<img src="data:image/png;base64,([^"]+)"[^>]*data-quality="(\d)"', text)
        assert [n for _, n in found] == ["0", "1"] * 4
        weak, strong = (np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int) for data, _ in found[:2])
        assert weak.shape == (300, 320, 3)
        for drawn in (weak, strong):
            assert (drawn[:4] == 128).all() and (drawn[:, -4:] == 128).all() and not (drawn[4, 4:-4] == 128).all()
        middle = np.array([242, 242, 242])  # of the colours: nothing lost there
        assert abs(strong[4:-4, 4:-4] - middle).sum() > 2 * abs(weak[4:-4, 4:-4] - middle).sum()

    def test_a_file_that_is_another_now_is_not_shown(self, compared, tmp_path):
        Image.new("RGB", (320, 300)).save(tmp_path / "b" / "p1.png")
        (tmp_path / "a" / "p2.png").unlink()
        found = {shot.key: shot.problem for shot in shots(compared, choose(compared.arrays()))}
        assert "is not the file that was scored" in found["p1"] and "is not there any more" in found["p2"]
        assert found["p0"] == found["p3"] == ""
        assert "is not the file that was scored" in report_html(compared)

    def test_are_found_where_the_run_knew_them(self, compared, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        results = compare({"a": "a", "b": "b"}, "gt", ["toy-error"])
        (tmp_path / "else").mkdir()
        monkeypatch.chdir(tmp_path / "else")
        assert all(shot.panes for shot in shots(results, choose(results.arrays())))

    def test_16_bits_are_shown_as_8(self, tmp_path, noise, toys):
        for name, seed in (("a", 0), ("gt", 1)):
            (tmp_path / name).mkdir()
            deep = noise((40, 50, 3), seed).astype(int) * 257 + 100
            png16(tmp_path / name / "p.png", deep.clip(0, 65535).astype(np.uint16))
        results = compare({"a": tmp_path / "a"}, tmp_path / "gt", ["toy-error"])
        (shot,) = shots(results, choose(results.arrays()))
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(shot.panes[1].url.partition(",")[2]))))
        assert np.array_equal(shown, noise((40, 50, 3), 1)) and shot.box is None

    @pytest.mark.parametrize(
        ("settings", "size"), [({"resize": "to-ref"}, (44, 40)), ({"crop": "to-ref"}, (42, 40))], ids=["resized", "cut"]
    )
    def test_sizes_are_made_alike_as_for_the_critics(self, tmp_path, noise, toys, settings, size):
        for name, width in (("a", 42), ("gt", 44)):
            (tmp_path / name).mkdir()
            Image.fromarray(noise((40, width, 3), 3)).save(tmp_path / name / "p.png")
        results = compare({"a": tmp_path / "a"}, tmp_path / "gt", ["toy-error"], settings=Settings(**settings))
        (shot,) = shots(results, choose(results.arrays()))
        assert [(pane.width, pane.height) for pane in shot.panes] == [size, size]

    def test_of_stereo_pairs_the_left_view_is_shown(self, tmp_path, noise, toys):
        for name in ("a", "gt"):
            for n, side in enumerate(("left", "right")):
                (tmp_path / name / side).mkdir(parents=True)
                Image.fromarray(noise((40, 42, 3), n)).save(tmp_path / name / side / "p.png")
        rules = Pairing(stereo=True)
        results = compare({"a": tmp_path / "a"}, tmp_path / "gt", ["toy-error"], rules=rules)
        (shot,) = shots(results, choose(results.arrays()))
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(shot.panes[0].url.partition(",")[2]))))
        assert np.array_equal(shown, noise((40, 42, 3), 0))

    def test_images_from_memory_have_none(self, toys):
        import torch

        results = score_pairs([("k", torch.rand(3, 12, 12), torch.rand(3, 12, 12))], ["toy-error"])
        assert "scored from memory" in report_html(results)


class TestPage:
    def test_stands_alone_and_runs_one_script(self, compared):
        page = report_html(compared)
        tags = Tags(page)
        for tag, attrs in tags.found:
            for name, value in attrs.items():
                assert not name.startswith("on"), (tag, name)
                if name in ("src", "href"):
                    assert value.startswith(("data:image/png;base64,", "#")), (tag, value[:60])
        assert not re.search(
            r"url\(|@import|https?://",
            re.sub(r"data:image/png;base64,[\w+/=]+", "", tags.of("style") and page.split("</style>")[0]),
        )
        (policy,) = (meta["content"] for meta in tags.of("meta") if "http-equiv" in meta)
        assert policy.startswith("default-src 'none'; img-src data: blob:;")
        script = page.rpartition("<script>")[2].partition("</script>")[0]
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
        assert [attrs.get("type") for attrs in tags.of("script")] == ["application/json", None]

    def test_data_can_be_read_and_equal_results_give_equal_pages(self, compared):
        page = report_html(compared)
        data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
        assert data["keys"] == ["p0", "p1", "p2", "p3"] and data["base"] == 0
        assert data["values"][1][0][2] == pytest.approx(compared.values[1][0][2], rel=1e-5)
        assert report_html(compared) == page

    def test_names_are_never_markup(self):
        results = random_results(systems=2)
        images = tuple(replace(image, key=HOSTILE + image.key) for image in results.images)
        critics = tuple(replace(c, label=HOSTILE + c.label, signature=HOSTILE) for c in results.critics)
        named = replace(
            results, systems=("base", HOSTILE), images=images, critics=critics, provenance={"command": [HOSTILE]}
        )
        page = report_html(named)
        tags = Tags(page)
        assert len(tags.of("script")) == 2 and "img" not in {tag for tag, _ in tags.found}
        assert not any(name.startswith("on") for _, attrs in tags.found for name in attrs)
        assert "{{7*7}}" in page and "<img src=x" not in page
        assert HOSTILE not in named._repr_html_() and "&lt;img" in named._repr_html_()

    def test_control_signs_and_undecodable_names_are_shown_as_escapes(self):
        results = random_results(systems=2)
        named = replace(results, systems=("base", "b\x1b[31m\u202e\udcff"))
        page = report_html(named)
        assert r"b\x1b[31m\u202e\udcff" in page and "\u202e" not in page and "\x1b" not in page
        page.encode("utf-8")

    @pytest.mark.parametrize(
        "values",
        [
            np.ones((2, 2, 1)),
            np.arange(8.0).reshape(2, 2, 2),
            np.ones((2, 2, 7)),
            np.full((2, 2, 3), nan),
            np.array([[[1, nan, 3], [1, 2, 3]], [[2, 2, 2], [nan, nan, nan]]]),
            np.ones((1, 2, 1)),
            np.full((1, 1, 2), nan),
            np.array([[[1e300, -1e300, 0]], [[0, 1e-300, 1]]]),
        ],
        ids=["one image", "two images", "all equal", "all NaN", "some NaN", "one score", "one system NaN", "extreme"],
    )
    def test_odd_scores_have_a_report(self, values):
        page = report_html(made(values))
        assert "<h2>Answer</h2>" in page and "nan" not in re.sub(
            r"[a-z]*nan[a-z]+", "", page.partition("<body>")[2].partition("<script")[0]
        )

    def test_a_gap_is_said(self):
        page = report_html(made([[[1, 2, 3.0]], [[2, nan, 1]]]))
        assert "n/a" in page

    def test_groups_and_presets_and_five_systems(self):
        values = np.random.default_rng(0).normal(size=(7, 2, 12))
        results = made(values, systems=[f"s{n}" for n in range(7)])
        groups = {image.key: f"scene {n // 3}" for n, image in enumerate(results.images)}
        page = report_html(replace(results, analysis=replace(results.analysis, groups=groups, details=True, worst="2")))
        assert "4 groups" in page and "Friedman" in page and "Bradley-Terry" in page

    @pytest.mark.thorough
    def test_a_thousand_images_stay_below_15_megabytes(self, tmp_path, noise):
        """Four systems, five critics, and pictures that no compression makes smaller."""
        columns = [replace(LIGHT, label=f"critic {n}", signature=f"c{n}|x:1") for n in range(5)]
        values = np.random.default_rng(0).normal(size=(4, 5, 1000))
        results = made(values, columns, ("a", "b", "c", "d"))
        images = list(results.images)
        for choice in choose(results.arrays()):
            files = []
            for n in range(5):
                path = tmp_path / f"{choice.image}-{n}.png"
                Image.fromarray(noise((300, 300, 3), n)).save(path, compress_level=1)
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                files.append(ImageFile(path.as_posix(), digest, 300, 300, "rgb8"))
            images[choice.image] = replace(images[choice.image], outputs=tuple(files[:4]), reference=files[4])
        page = report_html(replace(results, images=tuple(images)))
        assert page.count("data-pane=") == 75 and len(page.encode()) < 15e6

    def test_notebooks_get_the_table(self):
        shown = random_results()._repr_html_()
        assert shown.startswith("<table><thead>") and "third" in shown and "±" in shown and "rank" in shown


class TestCommands:
    def args(self, tmp_path):
        return [f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}", "--ref", str(tmp_path / "gt"), "-c", "toy-error"]

    def test_compare_and_report_write_the_same_page(self, compared, tmp_path, capsys):
        page, saved = tmp_path / "page.html", tmp_path / "saved.json"
        assert main(["compare", *self.args(tmp_path), "--report", str(page), "--output", str(saved), "--quiet"]) == 0
        capsys.readouterr()
        assert main(["report", str(saved)]) == 0
        assert capsys.readouterr().out.strip() == (tmp_path / "saved.html").as_posix()
        assert (tmp_path / "saved.html").read_text("utf-8") == page.read_text("utf-8")
        assert main(["report", str(saved), "--output", str(page), "--embed", "none"]) == 0
        assert "--embed none" in page.read_text("utf-8")

    def test_content_is_measured_against_the_references(self, compared, tmp_path):
        page, saved = tmp_path / "page.html", tmp_path / "saved.json"
        for path in (tmp_path / "b").iterdir():  # a tint, and nothing else
            clean = np.asarray(Image.open(tmp_path / "gt" / path.name)).astype(int) + np.array([30, 0, 0])
            Image.fromarray(clean.clip(0, 255).astype(np.uint8)).save(path)
        args = [*self.args(tmp_path), "--report", str(page), "--content", "--output", str(saved), "--quiet"]
        assert main(["compare", *args]) == 0
        text = page.read_text("utf-8")
        assert "what images are made of, against their references: 4 images shown below" in text
        (table,) = re.findall(r"what images are made of.*?<tbody>(.*?)</tbody>", text, re.S)
        rows = [re.findall(r"<td>(.*?)</td>", row) for row in table.split("</tr>")[:2]]
        assert [row[0] for row in rows] == ["a", "b"]
        drifts = [row[4] for row in rows]
        assert float(drifts[0]) < 1 < 5 < float(drifts[1].removesuffix(" !")) and drifts[1].endswith(" !")
        (tmp_path / "b" / "p1.png").unlink()
        assert main(["report", str(saved), "--content", "--output", str(page)]) == 0
        assert "3 images shown below" in page.read_text("utf-8") and "p1 left out: " in page.read_text("utf-8")
        assert main(["report", str(saved), str(saved), "--content", "--output", str(page)]) == 2

    def test_trained_critics_are_declared(self, compared, tmp_path):
        saved = tmp_path / "saved.json"
        args = [*self.args(tmp_path), "-c", "toy-light", "--trained", "toy-error", "--output", str(saved), "--quiet"]
        assert main(["compare", *args]) == 0
        assert [column.role for column in load_results(saved).critics] == ["train", "judge"]

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            (["--report", "page.txt"], "--report must end in .html, got 'page.txt'"),
            (["--report", "nowhere/page.html"], "--report: there is no folder 'nowhere'"),
            (["--report", "page.html", "--map", "toy-light"], "--map toy-light is none of the critics of -c"),
            (["--map", "toy-error"], "--map is shown in a report: give --report"),
            (["--content"], "--content is shown in a report: give --report"),
            (["--trained", "toy-eror"], "--trained toy-eror is none of the critics; did you mean 'toy-error'?"),
        ],
    )
    def test_problems_are_found_before_the_first_score(self, compared, tmp_path, toys, capsys, more, said):
        before = toys.scored
        assert main(["compare", *self.args(tmp_path), *more]) == 2
        assert said in capsys.readouterr().err and toys.scored == before

    def test_what_is_no_result_is_named(self, tmp_path, capsys):
        (tmp_path / "x.json").write_text("{", "utf-8")
        assert main(["report", str(tmp_path / "x.json"), str(tmp_path / "none.json")]) == 2
        said = capsys.readouterr().err
        assert "x.json: not JSON" in said and "none.json: No such file" in said

    def test_a_page_takes_its_place_in_one_piece(self, tmp_path):
        page = tmp_path / "page.html"
        write_report(random_results(), page)
        assert page.read_text("utf-8").rstrip().endswith("</html>")
        assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
