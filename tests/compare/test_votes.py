"""Votes: what a page asks, what comes back, what is refused, and what it says."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from made import DISTANCE, made
from PIL import Image

from perceptloss.cli.main import main
from perceptloss.compare import Pairing, Results, Settings, load_results
from perceptloss.compare.plan import make_plan
from perceptloss.compare.statistics.significance import wilson
from perceptloss.compare.votes.asking import vote_html
from perceptloss.compare.votes.ballots import COLUMNS, Vote, read_votes
from perceptloss.compare.votes.codes import check_of
from perceptloss.compare.votes.tally import tally
from perceptloss.compare.votes.trials import BAD, GOOD, Options, Trial, draw_trials
from perceptloss.errors import ConfigError

SYSTEMS = ("alpha", "beta", "gamma")


@pytest.fixture
def plan(folder):
    for n, name in enumerate((*SYSTEMS, "gt")):
        folder(name, size=(40, 48), one=10 * n + 20, two=10 * n + 60, three=10 * n + 100)
    home = folder("gt").parent
    return make_plan(
        {name: home / name for name in SYSTEMS},
        home / "gt",
        (),
        rules=Pairing(),
        settings=Settings(device="cpu"),
        is_scored=False,
    )


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


def answered(page: str, voter: str = "Ann", choose=lambda n: "left") -> list[dict[str, str]]:
    """Rows as the page's script writes them."""
    data = data_of(page)
    rows = []
    for n, trial in enumerate(data["trials"]):
        row = {"page": data["page"], "voter": voter, "trial": str(n + 1), "answer": choose(n), "seconds": "1.5"}
        row |= dict(zip(("left", "right"), trial["codes"], strict=True))
        rows.append({**row, "check": check_of(row)})
    return rows


def saved(path, rows):
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue(), "utf-8")
    return path


def records(plan):
    return [(image.key, image.outputs, image.reference) for image in plan.images]


class TestTrials:
    def test_every_pair_of_every_image_once_repeats_turned_and_late(self):
        asked = draw_trials(5, 3, Options(repeats=4, catches=3))
        plain = [(t.image, frozenset((t.left, t.right))) for t in asked if t.left >= 0]
        counts = Counter(plain)
        assert len(asked) == 15 + 4 + 3 and len(counts) == 15 and sorted(counts.values()) == [1] * 11 + [2] * 4
        for question in (question for question, count in counts.items() if count == 2):
            first, second = (t for t in asked if (t.image, frozenset((t.left, t.right))) == question)
            assert first.turned == second
        assert sum({t.left, t.right} == {GOOD, BAD} for t in asked) == 3

    def test_a_limit_keeps_pairs_and_images_in_balance(self):
        asked = draw_trials(50, 3, Options(trials=30, repeats=0, catches=0))
        assert set(Counter(frozenset((t.left, t.right)) for t in asked).values()) == {10}
        assert max(Counter(t.image for t in asked).values()) <= 3

    def test_sides_and_order_are_the_seeds(self):
        asked = draw_trials(100, 2, Options(trials=200, repeats=0, catches=0))
        assert 30 < sum(trial.left == 0 for trial in asked) < 70
        assert asked == draw_trials(100, 2, Options(trials=200, repeats=0, catches=0))
        assert asked != draw_trials(100, 2, Options(trials=200, repeats=0, catches=0, seed=1))

    def test_what_cannot_be_asked_is_listed(self):
        with pytest.raises(ConfigError, match=r"(?s)trials must.*repeats must.*side must"):
            Options(trials=0, repeats=-1, side=3)
        with pytest.raises(ConfigError, match="two systems or more, got 1"):
            draw_trials(3, 1, Options())
        assert draw_trials(1, 2, Options(repeats=0, catches=0)) in ([Trial(0, 0, 1)], [Trial(0, 1, 0)])


class TestPage:
    def test_names_no_system_and_shows_each_picture_once(self, plan):
        page = vote_html(plan, Options(repeats=2))
        assert not any(name in page for name in (*SYSTEMS, "one.png"))
        data = data_of(page)
        assert len(set(data["pictures"])) == len(data["pictures"]) <= 3 * 5
        assert len(data["trials"]) == 9 + 2 + 3
        assert page == vote_html(plan, Options(repeats=2)) != vote_html(plan, Options(repeats=2, seed=1))

    def test_codes_fit_one_page_only(self, plan):
        one, other = (data_of(vote_html(plan, Options(seed=seed))) for seed in (0, 1))
        codes = [{code for trial in data["trials"] for code in trial["codes"]} for data in (one, other)]
        assert not codes[0] & codes[1] and one["page"] != other["page"]

    def test_ties_and_references_only_where_asked_for(self, plan, folder):
        page = vote_html(plan, Options(question="Which <b>one</b>?"))
        assert (
            "no difference</button>" not in page
            and 'id="reference"' in page
            and "Which &lt;b&gt;one&lt;/b&gt;?" in page
        )
        bare = replace(plan, images=tuple(replace(image, reference=None) for image in plan.images))
        page = vote_html(bare, Options(has_ties=True))
        assert "no difference</button>" in page and 'id="reference"' not in page

    def test_the_command_writes_it(self, plan, folder, tmp_path, capsys):
        systems = [f"{name}={tmp_path / name}" for name in SYSTEMS]
        page = tmp_path / "vote.html"
        assert (
            main(["vote", *systems, "--ref", str(tmp_path / "gt"), "-o", str(page), "--trials", "5", "--side", "whole"])
            == 0
        )
        assert "vote.html (" in capsys.readouterr().out and len(data_of(page.read_text("utf-8"))["trials"]) == 11
        assert main(["vote", systems[0], "-o", str(page)]) == 2
        assert main(["vote", *systems, "-o", str(page), "--side", "small"]) == 2
        assert main(["vote", *systems, "-o", str(tmp_path / "vote.csv")]) == 2
        said = capsys.readouterr().err
        assert "two systems or more, got 1" in said and "expected a number of pixels or whole" in said
        assert "--output must end in .html" in said


class TestBallots:
    def test_come_back_as_votes_on_systems(self, plan, tmp_path):
        page = vote_html(plan, Options(repeats=2))
        path = saved(tmp_path / "v.csv", answered(page))
        votes = read_votes([path], SYSTEMS, records(plan))
        assert len(votes) == 14 and {vote.voter for vote in votes} == {"Ann"}
        asked = draw_trials(3, 3, Options(repeats=2))
        for vote, trial in zip(votes, asked, strict=True):
            assert vote.image == plan.images[trial.image].key
            if trial.left >= 0:
                assert (vote.left, vote.right) == (SYSTEMS[trial.left], SYSTEMS[trial.right])
            else:
                assert vote.catch == ("left" if trial.left == GOOD else "right") and vote.left == vote.right == ""

    @pytest.mark.parametrize("voter", ["=1+1", "-Ann", "Zoë, 'the eye'", '"<script>alert(1)</script>"', "王"])
    def test_any_name_comes_back(self, plan, tmp_path, voter):
        rows = answered(vote_html(plan), voter)
        quoted = [{**row, "voter": f"'{voter}" if voter[0] in "=-" else voter} for row in rows]
        votes = read_votes([saved(tmp_path / "v.csv", quoted)], SYSTEMS, records(plan))
        assert {vote.voter for vote in votes} == {voter}

    def test_what_was_edited_is_refused(self, plan, tmp_path):
        rows = answered(vote_html(plan))
        rows[3]["answer"] = "right"
        rows[7]["voter"] = "Bob"
        with pytest.raises(ConfigError, match=r"v\.csv: changed after it was saved, in line 5, line 9; take the file"):
            read_votes([saved(tmp_path / "v.csv", rows)], SYSTEMS, records(plan))

    def test_another_page_and_other_files_are_refused(self, plan, tmp_path):
        path = saved(tmp_path / "v.csv", answered(vote_html(plan)))
        with pytest.raises(ConfigError, match=r"line 2, .* are of no output that is compared"):
            read_votes([path], ("alpha", "beta", "delta"), [(k, o, None) for k, o, _ in records(plan)])
        changed = [
            (key, tuple(replace(o, sha256="0" * 64) for o in outputs), None) for key, outputs, _ in records(plan)
        ]
        with pytest.raises(
            ConfigError, match="all lines are of no output that is compared: the page was made of other"
        ):
            read_votes([path], SYSTEMS, changed)

    def test_a_file_twice_is_refused_and_two_voters_are_not(self, plan, tmp_path):
        page = vote_html(plan)
        one = saved(tmp_path / "a.csv", answered(page))
        other = saved(tmp_path / "b.csv", answered(page, "Bob"))
        assert len(read_votes([one, other], SYSTEMS, records(plan))) == 2 * len(answered(page))
        with pytest.raises(ConfigError, match="answers that are there twice: Ann on p"):
            read_votes([one, other, one], SYSTEMS, records(plan))

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"answer": "both"}, "answer must be left, right or tie, got 'both'"),
            ({"seconds": "soon"}, "seconds must be a number, got 'soon'"),
            ({"trial": "-1"}, "trial must be a whole number, got '-1'"),
            ({"voter": ""}, "voter must be a name, got ''"),
            ({"right": "LEFT"}, "which no page asks"),
        ],
    )
    def test_rows_that_no_page_writes_are_refused(self, plan, tmp_path, change, said):
        rows = answered(vote_html(plan))
        changed = {**rows[0], **{k: rows[0]["left"] if v == "LEFT" else v for k, v in change.items()}}
        rows[0] = {**changed, "check": check_of(changed)}
        with pytest.raises(ConfigError, match=f"line 2: .*{said}"):
            read_votes([saved(tmp_path / "v.csv", rows)], SYSTEMS, records(plan))

    def test_other_files_are_named_with_what_they_lack(self, plan, tmp_path):
        (tmp_path / "x.csv").write_text("a,b\n1,2\n", "utf-8")
        (tmp_path / "y.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError) as caught:
            read_votes([tmp_path / "x.csv", tmp_path / "y.csv", tmp_path / "z.csv"], SYSTEMS, records(plan))
        said = str(caught.value)
        assert "x.csv: the header lacks 'page'" in said and "y.csv: cannot be read" in said and "z.csv: cannot" in said


def vote(voter, trial, image, left, right, answer, catch=None):
    return Vote(voter, "p1", trial, image, left, right, answer, 2.0, catch)


class TestTally:
    results = made([[[1.0, 1, 1, 1]], [[0.5, 2, 0.5, 1]]], [DISTANCE], ("a", "b"))  # lower is better

    def of(self, *votes):
        return tally(self.results.arrays(), votes, {}, seed=0, level=0.95)

    def test_people_agree_with_a_critic_on_a_share_of_pairs(self):
        found = self.of(
            vote("x", 1, "image 000", "a", "b", "right"),  # as the critic
            vote("y", 1, "image 000", "b", "a", "left"),
            vote("x", 2, "image 001", "a", "b", "right"),  # against it
            vote("x", 3, "image 002", "a", "b", "left"),
            vote("y", 3, "image 002", "a", "b", "right"),  # undecided
            vote("x", 4, "image 003", "a", "b", "left"),  # the critic sees no difference
        )
        (agreed,) = found.critics
        assert (agreed.pairs, agreed.share, found.undecided, found.votes) == (3, 0.5, 1, 6)
        assert (agreed.low, agreed.high) == wilson(0.5, 3)

    def test_a_majority_counts_once(self):
        votes = [vote(f"v{n}", 1, "image 000", "a", "b", "right" if n < 3 else "left") for n in range(5)]
        assert self.of(*votes).critics[0].pairs == 1 and self.of(*votes).critics[0].share == 1.0

    def test_strengths_follow_the_votes(self):
        votes = [vote("x", n, f"image 00{n}", "a", "b", "left" if n < 3 else "right") for n in range(4)]
        found = self.of(*votes).strengths
        assert found.values[0] > 0 > found.values[1]
        assert found.values[0] - found.values[1] == pytest.approx(np.log(3), abs=0.15)
        assert found.low[0] < found.values[0] < found.high[0]

    def test_a_tie_is_half_a_win_of_both(self):
        found = self.of(*(vote("x", n, f"image 00{n}", "a", "b", "tie") for n in range(4)))
        assert found.strengths.values == pytest.approx((0, 0)) and found.critics == (None,) and found.undecided == 4

    def test_voters_have_a_record(self):
        found = self.of(
            vote("x", 1, "image 000", "a", "b", "right"),
            vote("x", 2, "image 001", "a", "b", "left"),
            vote("x", 3, "image 000", "b", "a", "left"),  # the same again
            vote("x", 4, "image 001", "b", "a", "left"),  # the other one
            vote("x", 5, "image 002", "", "", "left", "left"),
            vote("x", 6, "image 002", "", "", "left", "right"),  # failed
            vote("y", 1, "image 000", "a", "b", "right"),
            vote("y", 2, "image 001", "a", "b", "tie"),
        )
        x, y = found.voters
        assert (x.votes, x.ties, x.left, x.repeats, x.consistent, x.catches, x.failed) == (2, 0, 1, 2, 1, 2, 1)
        assert x.with_others == (1, 1) and y.with_others == (1, 1) and y.ties == 1 and x.seconds == 2.0

    def test_images_of_a_group_are_one_unit(self):
        groups = {f"image 00{n}": "one scene" for n in range(4)}
        votes = [vote("x", n, f"image 00{n}", "a", "b", "left") for n in range(4)]
        found = tally(self.results.arrays(), votes, groups, seed=0, level=0.95)
        assert found.strengths.low == () and found.strengths.is_separated


class TestResults:
    def test_are_kept_and_shown_everywhere(self, plan, tmp_path, toys, capsys):
        page = vote_html(plan)
        path = saved(tmp_path / "v.csv", answered(page, "<i>Ann</i>"))
        systems = [f"{name}={tmp_path / name}" for name in SYSTEMS]
        out, html = tmp_path / "r.json", tmp_path / "r.html"
        args = ["--ref", str(tmp_path / "gt"), "-c", "toy-error", "--votes", str(path), "--quiet"]
        assert main(["compare", *systems, *args, "--output", str(out), "--report", str(html)]) == 0
        said = capsys.readouterr().out
        assert "what people prefer, by 9 votes of 1 voter" in said and "people agree with" in said
        kept = load_results(out)
        assert len(kept.analysis.votes) == len(answered(page)) and kept.inference.tally.votes == 9
        assert Results.from_dict(json.loads(kept.to_json())) == kept
        text = html.read_text("utf-8")
        assert "&lt;i&gt;Ann&lt;/i&gt;" in text and "<i>Ann" not in text and "people agree with" in text

    def test_votes_on_what_is_not_compared_are_refused(self):
        strange = vote("x", 1, "image 009", "a", "b", "left")
        with pytest.raises(ConfigError, match="votes on what is not compared: a/image 009, b/image 009"):
            replace(TestTally.results, analysis=replace(TestTally.results.analysis, votes=(strange,)))

    def test_wrong_votes_stop_before_the_first_score(self, plan, tmp_path, toys, capsys):
        rows = answered(vote_html(plan))
        rows[0]["answer"] = "tie"
        path = saved(tmp_path / "v.csv", rows)
        systems = [f"{name}={tmp_path / name}" for name in SYSTEMS]
        args = ["--ref", str(tmp_path / "gt"), "-c", "toy-error", "--votes", str(path)]
        assert main(["compare", *systems, *args]) == 2
        assert "changed after it was saved, in line 2" in capsys.readouterr().err and toys.scored == 0


def test_a_page_of_pictures_that_changed_is_refused(plan, tmp_path):
    from perceptloss.errors import InputError

    Image.new("RGB", (48, 40)).save(tmp_path / "beta" / "two.png")
    with pytest.raises(InputError, match="is not the file that was scored"):
        vote_html(plan)
