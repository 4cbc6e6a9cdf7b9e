"""Files of votes, read back: whose votes they are and what of, and everything that speaks against them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Final, Literal

from perceptloss.compare.csv_files import number, read_table, unquoted
from perceptloss.compare.images import ImageFile
from perceptloss.compare.votes.codes import CATCH, check_of, code_of
from perceptloss.errors import ConfigError, some

__all__ = ["COLUMNS", "Record", "Vote", "read_votes"]

COLUMNS: Final = ("page", "voter", "trial", "left", "right", "answer", "seconds", "check")
Answer = Literal["left", "right", "tie"]
_ANSWERS: Final = ("left", "right", "tie")
Record = tuple[str, Sequence[ImageFile | None], ImageFile | None]  # key, outputs, reference


@dataclass(frozen=True)
class Vote:
    """An answer.

    Attributes:
        voter: Name on the file.
        page: Code of the page that asked.
        trial: Number of the question, from 1.
        image: Key of the image.
        left: System on the left; empty for the good side of a catch trial.
        right: System on the right; likewise.
        answer: `left`, `right` or `tie`.
        seconds: That it took.
        catch: Side of a catch trial that everybody must prefer; None for questions.
    """

    voter: str
    page: str
    trial: int
    image: str
    left: str
    right: str
    answer: Answer
    seconds: float
    catch: Literal["left", "right"] | None = None


def read_votes(
    paths: Sequence[str | PathLike[str]], systems: Sequence[str], records: Sequence[Record]
) -> tuple[Vote, ...]:
    """Votes from the files that a page saved.

    Args:
        paths: The files.
        systems: Names, as the page was made with.
        records: The images that are compared, of the same bytes as the page showed.

    Raises:
        ConfigError: listing files and lines that were changed, are there twice, or are of another page.
    """
    found: list[Vote] = []
    problems: list[str] = []
    for path in paths:
        try:
            votes, more = _read(str(path), systems, records)
        except ConfigError as error:
            votes, more = [], list(error.problems)
        found += votes
        problems += [f"{path}: {problem}" for problem in more]
    asked = Counter((vote.page, vote.voter, vote.trial) for vote in found)
    if twice := [f"{voter} on {page}, trial {trial}" for (page, voter, trial), count in asked.items() if count > 1]:
        problems.append(f"answers that are there twice: {some(twice)}; give each file once")
    if problems:
        raise ConfigError(problems, "--votes")
    return tuple(found)


def _read(path: str, systems: Sequence[str], records: Sequence[Record]) -> tuple[list[Vote], list[str]]:
    table = read_table(path, COLUMNS)
    rows = [(line, {name: table.cell(row, name) for name in COLUMNS}) for line, row in table.rows]
    rows = [(line, {**row, "voter": unquoted(row["voter"])}) for line, row in rows]
    changed = [f"line {line}" for line, row in rows if row["check"] != check_of(row)]
    if changed:
        return [], [f"changed after it was saved, in {some(changed)}; take the file as the page gave it"]
    known = {page: _codes(page, systems, records) for page in {row["page"] for _, row in rows}}
    votes, problems, strange = [], [], []
    for line, row in rows:
        vote, problem = _vote(row, known[row["page"]])
        if vote is not None:
            votes.append(vote)
        elif problem:
            problems.append(f"line {line}: {problem}")
        else:
            strange.append(f"line {line}")
    if strange:
        said = "all lines are" if len(strange) == len(rows) else f"{some(strange)} are"
        problems.append(
            f"{said} of no output that is compared: the page was made of other systems (or other names), other images "
            "or other files"
        )
    return votes, problems


def _codes(page: str, systems: Sequence[str], records: Sequence[Record]) -> dict[str, tuple[str, str]]:
    """What each code of a page means: image, and system or kind of catch."""
    found = {}
    for key, outputs, reference in records:
        for name, file in zip(systems, outputs, strict=True):
            if file is not None:
                found[code_of(page, f"system:{name}", key, file)] = (key, f"system:{name}")
        last = reference or outputs[-1]
        if last is not None:
            found |= {code_of(page, kind, key, last): (key, kind) for kind in CATCH}
    return found


def _vote(row: Mapping[str, str], known: Mapping[str, tuple[str, str]]) -> tuple[Vote | None, str]:
    """The vote, or what is wrong with it; neither if it is about nothing that is compared."""
    seconds, trial = number(row["seconds"]), row["trial"]
    expected = {
        "answer": (row["answer"] in _ANSWERS, "left, right or tie"),
        "seconds": (seconds is not None and seconds >= 0, "a number"),
        "trial": (trial.isdecimal(), "a whole number"),
        "voter": (bool(row["voter"]), "a name"),
    }
    wrong = [f"{name} must be {what}, got {row[name]!r}" for name, (is_fine, what) in expected.items() if not is_fine]
    if wrong or seconds is None:
        return None, "; ".join(wrong)
    if row["left"] not in known or row["right"] not in known:
        return None, ""
    (image, left), (other, right) = known[row["left"]], known[row["right"]]
    if image != other or left == right or _is_mixed({left, right}):
        return None, f"compares {left} of {image!r} with {right} of {other!r}, which no page asks"
    catch: Literal["left", "right"] | None = None
    if left in CATCH:
        catch = "left" if left == CATCH[0] else "right"
    answer: Answer = row["answer"]  # type: ignore[assignment]
    first, second = ("" if side in CATCH else side.partition(":")[2] for side in (left, right))
    return Vote(row["voter"], row["page"], int(trial), image, first, second, answer, seconds, catch), ""


def _is_mixed(sides: Collection[str]) -> bool:
    return 0 < sum(side in CATCH for side in sides) < len(sides)
