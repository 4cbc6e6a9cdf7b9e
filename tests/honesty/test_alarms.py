"""Alarms on histories written by hand: each rings beyond its limit, not at it, and says since when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from perceptloss.errors import DeceivedCritics, PerceptlossError
from perceptloss.honesty.alarms import Alarm, Limits, raised
from perceptloss.honesty.content import Content
from perceptloss.honesty.history import History, Scores, Sight, Validation, Watched
from perceptloss.honesty.reactions import decide

FINE = Content(1, 0, 1, 0, 0, 0, 0, 0, 0, 0)
NR = Watched("nr", "trained", "higher", needs_reference=False, identity=None)
FR = Watched("fr", "trained", "lower", needs_reference=True, identity=0.0)
JUDGES = tuple(Watched(name, "judge", "higher", needs_reference=True, identity=1.0) for name in "abc")
PSNR = Watched("psnr-y", "fidelity", "higher", needs_reference=True, identity=None)


def names(history, **limits):
    return [(alarm.name, alarm.about) for alarm in raised(history, Limits(**limits))]


def told(*rows, critics=(NR, *JUDGES, PSNR)):
    """A history of means: a row for each validation, a number for each critic."""
    means = [dict(zip([c.label for c in critics], row, strict=True)) for row in rows]
    return History(critics, [Validation(10 * n, (Sight(FINE),), m) for n, m in enumerate(means, 1)])


def seen(critic, *looks, critics=None):
    """A history of what a trained critic says of images: (output, mirrored, truth) for each, by validation."""
    validations = [
        Validation(10 * n, tuple(Sight(FINE, {critic.label: Scores(*one)}) for one in look), {})
        for n, look in enumerate(looks, 1)
    ]
    return History(critics or (critic,), validations)


class TestCriticUpJudgesDown:
    WORSE = ((1.0, 0.9, 0.9, 0.9, 30), (1.1, 0.88, 0.89, 0.9, 30), (1.2, 0.86, 0.88, 0.9, 30), (1.3, 0.8, 0.8, 0.9, 30))

    def test_rings_when_most_judges_fall(self):
        assert names(told(*self.WORSE)) == [("critic up, judges down", "nr")]

    def test_not_before_the_window_is_full(self):
        assert names(told(*self.WORSE[:3])) == []
        assert names(told(*self.WORSE[:3]), window=3) == [("critic up, judges down", "nr")]

    def test_not_when_judges_are_divided_or_fidelity_alone_falls(self):
        divided = [(nr, a, 0.9, c, psnr) for nr, a, _, c, psnr in self.WORSE]
        assert names(told(*divided)) == []
        traded = [(nr, 0.9, 0.9, 0.9, 30 - n) for n, (nr, *_) in enumerate(self.WORSE)]
        assert names(told(*traded)) == []

    def test_not_when_the_critic_rests_or_all_of_it_is_noise(self):
        assert names(told(*[(1.0, *rest) for _, *rest in self.WORSE])) == []
        assert names(told(*[(1 + n * 1e-4, 0.9 - n * 1e-4, 0.9 - n * 1e-4, 0.9, 30) for n in range(4)])) == []
        assert (
            names(told((1, 0.9, 0.9, 0.9, 30), (1.3, 0.8, 0.8, 0.9, 30), (1, 0.9, 0.9, 0.9, 30), self.WORSE[3])) == []
        )

    def test_a_lower_better_critic_rises_by_falling(self):
        down = replace(NR, better="lower")
        assert names(told(*[(2 - nr, *rest) for nr, *rest in self.WORSE], critics=(down, *JUDGES, PSNR))) != []

    def test_a_judge_without_a_score_is_not_counted(self):
        rows = [(nr, a, None, None, 30) for nr, a, *_ in self.WORSE]
        (alarm,) = raised(told(*rows))
        assert "1 of 1 judges" in alarm.seen


def test_above_the_ground_truth():
    def look(above, by=0.1):
        return [(0.8 + by, 0.8 + by, 0.8)] * above + [(0.7, 0.7, 0.8)] * (10 - above)

    assert names(seen(NR, look(7))) == []
    (alarm,) = raised(seen(NR, look(8)))
    assert (alarm.name, alarm.about, alarm.limit) == ("above the ground truth", "nr", "70% of them")
    assert "8 of 10" in alarm.seen
    assert names(seen(replace(NR, better="lower"), look(8))) == []
    assert names(seen(replace(NR, better="lower"), look(2))) == [("above the ground truth", "nr")]
    assert names(seen(NR, look(5), look(8, by=0.003))) == [], "too little to mean anything"
    assert names(seen(FR, [(0.1, 0.1, None)] * 10)) == [], "a distance has no score of the truth"


def test_mirror_in_units_of_the_first_spread():
    first = [(0.0, 0.0, 1.0), (1.0, 1.0, 2.0)]  # outputs and truths: 0, 1, 1, 2
    usual = 0.5**0.5
    for turn, rings in ((0.49, False), (0.51, True)):
        last = [(0.5, 0.5 + turn * usual, 1.0), (1.0, 1.0 - turn * usual, 2.0)]
        assert (("mirror", "nr") in names(seen(NR, first, last))) is rings
        restless = [(output, mirrored, truth, truth + 0.5 * turn) for output, mirrored, truth in last]
        assert names(seen(NR, first, restless)) == [], "it never was indifferent"


def test_anchors_fall_below_their_start():
    def history(*correlations):
        return History((NR,), [Validation(n, (Sight(FINE),), {}, {"nr": r}) for n, r in enumerate(correlations)])

    assert names(history(0.9, 0.95, 0.891)) == []
    assert names(history(0.9, 0.95, 0.889)) == [("anchors", "nr")]
    assert names(history(0.9, float("nan"))) == [("anchors", "nr")]
    late = history(0.9, 0.95, 0.889)
    late.validations.insert(0, Validation(0, (Sight(FINE),), {}))  # nobody asked at the start
    assert names(late) == [("anchors", "nr")]


def test_a_critic_that_says_the_same_of_all():
    def look(size, at=0.5):
        return [(at - size, at - size, None), (at + size, at + size, None)]

    assert names(seen(NR, look(0.2), look(0.03))) == []
    assert names(seen(NR, look(0.2), look(0.01))) == [("spread", "nr")]
    assert names(seen(FR, look(0.2), look(0.002, at=0.005))) == [], "all distances fell alike"
    assert names(seen(FR, look(0.2), look(0.002))) == [("spread", "fr")]


@pytest.mark.parametrize(
    ("figure", "fine", "bad"),
    [
        ("edge_density", 1.29, 1.31),
        ("colour_entropy", 0.74, 0.76),
        ("colour_entropy", -0.74, -0.76),
        ("saturation", 1.09, 1.11),
        ("saturation", 0.86, 0.84),
        ("drift_a", -0.99, -1.01),
        ("flat_noise", 1.9, 2.1),
        ("grid_quarter", 2.9, 3.1),
        ("grid_half", 2.9, 3.1),
        ("grid_corner", 2.9, 3.1),
    ],
)
def test_content_out_of_tolerance(figure, fine, bad):
    def history(value):
        return History((), [Validation(10, (Sight(replace(FINE, **{figure: value})),), {})])

    assert raised(history(fine)) == []
    (alarm,) = raised(history(bad))
    assert (alarm.name, alarm.since) == ("content", 10)
    assert alarm.about == figure.replace("drift_a", "chroma drift").replace("_", " ")
    assert alarm.advice


def test_images_that_are_not_finite():
    (alarm,) = raised(History((NR,), [Validation(5, (Sight(None), Sight(FINE)), {})]))
    assert (alarm.name, alarm.seen[:6]) == ("not finite", "1 of 2")


def test_since_is_the_first_step_without_a_pause():
    noise = [0, 9, 0, 9, 9]
    history = History(
        (), [Validation(10 * n, (Sight(replace(FINE, flat_noise=v)),), {}) for n, v in enumerate(noise, 1)]
    )
    (alarm,) = raised(history)
    assert alarm.since == 40
    assert alarm.seen == "9 levels"


def test_what_the_start_had_is_told_but_not_reacted_to():
    def ring(*values, first=0):
        looks = [
            Validation(10 * n, (Sight(replace(FINE, grid_half=value)),), {}) for n, value in enumerate(values, first)
        ]
        return raised(History((), looks))

    (start,), (less,), (more,) = ring(9.0), ring(9.0, 5.0), ring(9.0, 5.0, 10.0)
    assert [alarm.from_start for alarm in (start, less, more)] == [True, True, False]
    assert "as the start, or less" in str(less)
    assert decide([start, less], "stop").factor == 1
    assert decide([less], "anneal").factor == 1
    assert decide([less, more], "anneal").factor == 0.5
    with pytest.raises(DeceivedCritics) as stop:
        decide([less, more], "stop")
    assert "10 dB" in str(stop.value) and "5 dB" not in str(stop.value)
    assert not ring(9.0, 5.0, first=1)[0].from_start, "nobody saw the start"


class TestReactions:
    ALARM = Alarm("spread", "nr", "2% of it", "10%", 30, "lower its weight")

    def test_warn_and_quiet_change_nothing(self):
        assert decide([self.ALARM]).factor == 1
        for reaction in ("warn", "stop", "freeze", "anneal"):
            assert decide([], reaction, 0.25).factor == 0.25
        assert decide([self.ALARM]).alarms == (self.ALARM,)

    def test_freeze_is_for_good(self):
        frozen = decide([self.ALARM], "freeze")
        assert frozen.factor == 0
        assert decide([], "freeze", frozen.factor).factor == 0

    def test_anneal_halves_while_it_rings(self):
        once = decide([self.ALARM], "anneal").factor
        assert (once, decide([self.ALARM], "anneal", once).factor) == (0.5, 0.25)

    def test_stop_says_why_and_how_to_go_on(self):
        with pytest.raises(DeceivedCritics, match=r"spread, nr: 2% of it[\s\S]*since step 30; lower[\s\S]*'anneal'"):
            decide([self.ALARM], "stop")
        assert issubclass(DeceivedCritics, PerceptlossError)
