"""What people say of outputs, as tables: opinions, and votes."""

from __future__ import annotations

from collections.abc import Iterator

from perceptloss.compare.results import Results
from perceptloss.compare.shown import Section, p_text, strength_section
from perceptloss.compare.votes.tally import Tally
from perceptloss.output.tables import counted

__all__ = ["agreed", "voted"]


def agreed(results: Results) -> Iterator[Section]:
    """How well each critic agrees with people's opinions, and whether one does so better than another."""
    found = results.inference.agreement
    assert found is not None
    names = list(dict.fromkeys(name for critic in found.critics for name in critic.figures))
    rows = tuple(
        (critic.critic, str(critic.count), *(str(critic.figures.get(name) or "n/a") for name in names))
        for critic in found.critics
    )
    reasons = dict.fromkeys(
        f"{critic.critic}: no {name}: {reason}" for critic in found.critics for name, reason in critic.reasons.items()
    )
    notes = [
        "plcc after a logistic fit; pairs: share of pairs ordered as people do, and of those of one image; cci: of "
        "pairs whose intervals are apart",
        *reasons,
    ]
    title = f"agreement with people on {counted(len(results.analysis.opinions), 'output')}"
    yield Section(title, ("critic", "outputs", *names), rows, tuple(notes))
    if found.comparisons:
        pairs = tuple(
            (
                c.first,
                c.second,
                str(c.difference or "n/a"),
                "n/a" if c.z is None else f"{c.z:.2f}",
                p_text(c.p),
                p_text(c.holm),
            )
            for c in found.comparisons
        )
        head = ("agrees better", "than", "srcc", "z", "p", "after Holm")
        notes = [
            "srcc: the difference, with its interval over images or groups; z, p: Meng, Rosenthal and Rubin's test, "
            "which takes outputs as independent"
        ]
        yield Section("does one critic agree better than another?", head, pairs, tuple(notes))


def voted(results: Results, found: Tally) -> Iterator[Section]:
    """Strengths of the systems by votes, each voter's record, and which critics people agree with."""
    units = f"{results.inference.unit}s are drawn again for the intervals"
    yield strength_section(
        f"what people prefer, by {counted(found.votes, 'vote')} of {counted(len(found.voters), 'voter')}",
        results.systems,
        found.strengths,
        f"{units}; each answer is a vote, a tie half of one for both, and repeats count once",
    )
    rows = []
    for critic in found.critics:
        if critic is not None:
            share = f"{100 * critic.share:.0f} % [{100 * critic.low:.0f}, {100 * critic.high:.0f}]"
            rows.append((critic.critic, share, str(critic.pairs)))
    notes = ["of pairs of outputs of which most voters prefer one; 50 % is chance; Wilson interval over pairs"]
    if found.undecided:
        notes.append(f"without a majority, and left out: {counted(found.undecided, 'pair')}")
    if any(voter.with_others[1] for voter in found.voters):
        alike, count = (sum(voter.with_others[n] for voter in found.voters) for n in (0, 1))
        notes.append(
            f"a voter agrees with the majority of the others on {100 * alike / count:.0f} % of {count} answers"
        )
    if rows:
        yield Section("people agree with", ("critic", "share of pairs", "pairs"), tuple(rows), tuple(notes))
    header = ("voter", "votes", "ties", "for the left", "repeats alike", "catch trials failed", "median seconds")
    records = (
        (
            voter.name,
            str(voter.votes),
            str(voter.ties),
            str(voter.left),
            f"{voter.consistent} of {voter.repeats}",
            f"{voter.failed} of {voter.catches}",
            f"{voter.seconds:.1f}",
        )
        for voter in found.voters
    )
    about = "nobody's votes are left out: give the files of those whom you trust"
    yield Section("voters", header, tuple(records), (about,))
