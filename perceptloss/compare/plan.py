"""Everything that is checked before the first score: names, critics, pairs, sizes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from perceptloss.card import Card
from perceptloss.compare.folders import trouble
from perceptloss.compare.images import ImageFile, inspect_all, require_pillow
from perceptloss.compare.pairing import (
    REFERENCE,
    Images,
    ImageSet,
    Matched,
    find_images,
    match,
    refuse,
    same_source,
)
from perceptloss.compare.panel import Asked, parse_critics, unfit
from perceptloss.compare.results import Flag, ImageRecord
from perceptloss.compare.settings import Pairing, Settings
from perceptloss.critic import Critic
from perceptloss.errors import ConfigError, near

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """A comparison that can be run.

    Attributes:
        baseline: One of the systems, or None for a single one.
        sizes: Height and width that the critics will see, per image and system.
        left_out: Keys that are not compared, and the sets that lack them.
        flags: What a reader must know already now.
        sources: Where each set comes from, by its name.
        rules: How files were paired.
    """

    systems: tuple[str, ...]
    baseline: str | None
    asked: tuple[Asked, ...]
    images: tuple[ImageRecord, ...]
    sizes: tuple[tuple[tuple[int, int], ...], ...]
    left_out: Mapping[str, tuple[str, ...]]
    flags: tuple[Flag, ...]
    sources: Mapping[str, str]
    settings: Settings
    rules: Pairing

    def share(self, rank: int, world: int) -> Plan | None:
        """Every `world`-th image of a plan that leaves none out, from `rank` on; None if there is none."""
        part = slice(rank, None, world)
        return replace(self, images=self.images[part], sizes=self.sizes[part]) if self.images[part] else None

    @property
    def scores(self) -> int:
        """Number of scores to compute."""
        return len(self.systems) * len(self.images) * len(self.asked)

    @property
    def megapixels(self) -> float:
        """Judged pixels over all scores, in millions."""
        return sum(h * w for row in self.sizes for h, w in row) * len(self.asked) / 1e6


def make_plan(
    systems: Mapping[str, Images],
    reference: Images | None,
    critics: Sequence[str | Critic],
    *,
    baseline: str | None = None,
    rules: Pairing,
    settings: Settings,
) -> Plan:
    """Check all that can be checked without weights.

    Raises:
        ConfigError: listing what is wrong with names, critics and settings.
        PairingError: listing what is wrong with the images.
    """
    require_pillow()
    names = tuple(systems)
    wrong = _wrong_names(names, baseline)
    asked = parse_critics(critics)
    wrong += unfit(asked, settings, has_reference=reference is not None)
    if wrong:
        raise ConfigError(wrong, "the comparison")
    sets, matched, problems = _pair(systems, reference, rules)
    records, more = _inspect(sets, matched, rules, settings, has_reference=reference is not None)
    sizes = tuple(_sizes(record, settings) for record in records)
    cards = [entry.card for entry in asked]
    refuse([*problems, *more, *_mismatches(records, names, settings), *_too_small(cards, records, sizes)])
    return Plan(
        systems=names,
        baseline=(baseline or names[0]) if len(names) > 1 else None,
        asked=tuple(asked),
        images=records,
        sizes=sizes,
        left_out=matched.left_out,
        flags=tuple(_flags(records, names)),
        sources={images.name: images.source for images in sets},
        settings=settings,
        rules=rules,
    )


def _wrong_names(names: Sequence[str], baseline: str | None) -> list[str]:
    problems = [] if names else ["no system given: write name=path"]
    problems += [f"a system cannot be called {name!r}" for name in names if not name.strip() or name == REFERENCE]
    if baseline is not None and baseline not in names:
        problems.append(
            f"baseline {baseline!r} is not a system{near(baseline, names) or '.'} Systems: {', '.join(names)}"
        )
    return problems


def _pair(
    systems: Mapping[str, Images], reference: Images | None, rules: Pairing
) -> tuple[list[ImageSet], Matched, list[str]]:
    given = dict(systems) if reference is None else {**systems, REFERENCE: reference}
    found = [find_images(name, source, rules) for name, source in given.items()]
    sets = [images for images, _ in found]
    problems = [problem for _, more in found for problem in more]
    if any(not images.files for images in sets):
        refuse(problems)  # everything would be missing
    matched, more = match(sets, rules)
    return sets, matched, [*problems, *same_source(sets), *more]


def _inspect(
    sets: Sequence[ImageSet], matched: Matched, rules: Pairing, settings: Settings, *, has_reference: bool
) -> tuple[tuple[ImageRecord, ...], list[str]]:
    """Records of the matched images whose files are good, and all problems of the others.

    Unmatched files are inspected too, so that one run tells everything, unless they may be left out.
    """
    wanted = [(n, key) for n, images in enumerate(sets) for key in images.files]
    if rules.allow_missing or all(images.is_file for images in sets):
        wanted = [(n, key) for n in range(len(sets)) for key in matched.keys]
    wanted = [(n, key) for n, key in wanted if not trouble(sets[n].path(key))]
    files, problems = inspect_all([sets[n].path(key) for n, key in wanted], settings.policy)
    good = {(n, key): files[path] for n, key in wanted if (path := sets[n].path(key)) in files}
    records = []
    for key in matched.keys:
        row = [good[n, key] for n in range(len(sets)) if (n, key) in good]
        if len(row) == len(sets):
            outputs, last = (row[:-1], row[-1]) if has_reference else (row, None)
            records.append(ImageRecord(key, tuple(outputs), last))
    return tuple(records), problems


def _outputs(record: ImageRecord) -> list[ImageFile]:
    return [file for file in record.outputs if file is not None]


def _mismatches(records: Sequence[ImageRecord], names: Sequence[str], settings: Settings) -> list[str]:
    """Outputs whose size or mode is not that of the reference (or of the first system)."""
    problems = []
    for record in records:
        first, who = (record.reference, REFERENCE) if record.reference else (_outputs(record)[0], names[0])
        for name, file in zip(names, _outputs(record), strict=True):
            subject = f"{name}: {record.key!r}"
            if file.size != first.size and (settings.resize == "never" or record.reference is None):
                advice = "; --resize to-ref would resize it" if record.reference else ""
                sizes = f"is {_text(file.size)}, but {who} is {_text(first.size)} (height x width)"
                problems.append(f"{subject} {sizes}{advice}")
            if file.depth != first.depth:
                problems.append(f"{subject} has {file.depth} bits, but {who} has {first.depth}; save both alike")
    return problems


def _sizes(record: ImageRecord, settings: Settings) -> tuple[tuple[int, int], ...]:
    """What critics see of each output: the reference's size, less the border."""
    border = 2 * settings.crop_border
    seen = [record.reference or file for file in _outputs(record)]
    return tuple((max(0, file.height - border), max(0, file.width - border)) for file in seen)


def _too_small(
    cards: Sequence[Card], records: Sequence[ImageRecord], sizes: Sequence[Sequence[tuple[int, int]]]
) -> list[str]:
    """All images that a critic cannot take, one line per image and reason."""
    problems: dict[str, list[str]] = defaultdict(list)
    for record, row in zip(records, sizes, strict=True):
        for size in sorted(set(row)):
            for card in cards:
                if min(size) < max(1, card.min_size):
                    least = f"at least {card.min_size}x{card.min_size}"
                    problems[f"critic {card.name!r} needs images of {least}"].append(f"{record.key!r} is {_text(size)}")
                elif size[0] % card.multiple_of or size[1] % card.multiple_of:
                    need = f"critic {card.name!r} needs sides that are multiples of {card.multiple_of}"
                    problems[need].append(f"{record.key!r} is {_text(size)}")
    return [f"{need}: {', '.join(images)}" for need, images in problems.items()]


def _flags(records: Sequence[ImageRecord], names: Sequence[str]) -> list[Flag]:
    flags = []
    for record in records:
        reference = record.reference
        for name, file in zip(names, _outputs(record), strict=True):
            if reference and file.sha256 == reference.sha256:
                flags.append(
                    Flag("identical", f"{name}: {record.key!r} is the reference file itself", name, record.key)
                )
            if reference and file.size != reference.size:
                sizes = f"from {_text(file.size)} to {_text(reference.size)}"
                flags.append(Flag("resized", f"{name}: {record.key!r} was resized {sizes}", name, record.key))
    hashes = [tuple(_outputs(record)[n].sha256 for record in records) for n in range(len(names))]
    for same in (h for h, count in Counter(hashes).items() if count > 1):
        twins = [name for name, own in zip(names, hashes, strict=True) if own == same]
        flags.append(Flag("same-system", f"{' and '.join(twins)} have equal files for every image", twins[0]))
    return flags


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
