"""What the pictures of a comparison are made of, against their references, as a table of its report."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from perceptloss.compare.pages import pictures_of
from perceptloss.compare.pixels import as_tensor
from perceptloss.compare.report.crops import homes_of, settings_of
from perceptloss.compare.report.quality import chosen_images
from perceptloss.compare.results import Results
from perceptloss.compare.shown import Section
from perceptloss.errors import InputError
from perceptloss.output.tables import counted

__all__ = ["content_problems", "content_section"]


def content_problems(*, has_reference: bool) -> list[str]:
    """What speaks against content statistics."""
    problems = [] if has_reference else ["--content compares with references: give --ref"]
    if find_spec("kornia") is None:
        problems.append("--content needs kornia: pip install 'perceptloss[teach]'")
    return problems


def content_section(results: Results) -> Section:
    """Content statistics of each system, means over the images that a report shows.

    Raises:
        PerceptlossError: if kornia is not installed.
    """
    from perceptloss.honesty.content import TOLERANCES, Content, excesses, mean, measure

    found: list[list[Content]] = [[] for _ in results.systems]
    lost, images = [], chosen_images(results)
    for image in images:
        record = results.images[image]
        try:
            if record.reference is None:
                raise InputError(f"{record.key} has no reference")
            pictures = pictures_of(record, settings_of(results), homes_of(results))
            *outputs, reference = (as_tensor(picture)[None] for picture in pictures)
            row = [measure(output, reference) for output in outputs]
        except (InputError, OSError) as error:
            lost.append(f"{record.key} left out: {error}")
            continue
        for own, content in zip(found, row, strict=True):
            own.append(content)
    rows = []
    for name, contents in zip(results.systems, found, strict=True):
        if contents:
            whole = mean(contents)
            out = excesses(whole)
            rows.append((name, *(_figure(getattr(whole, figure), figure in out) for figure in TOLERANCES)))
    title = (
        f"what images are made of, against their references: {counted(len(images) - len(lost), 'image')} shown below"
    )
    notes = [f"{figure.replace('_', ' ')}: {tolerance}" for figure, tolerance in TOLERANCES.items()]
    return Section(title, ("system", *_names(list(TOLERANCES))), tuple(rows), ("!: out of tolerance", *notes, *lost))


def _names(figures: Sequence[str]) -> list[str]:
    return [figure.replace("_", " ") for figure in figures]


def _figure(value: float, is_out: bool) -> str:
    return f"{value:.2f}{' !' if is_out else ''}".replace("-", "−")
