"""Everything that is checked before the first score: names, critics, pairs, sizes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from perceptloss.compare.folders import trouble
from perceptloss.compare.images import inspect_all, require_pillow
from perceptloss.compare.pairing import REFERENCE, Images, ImageSet, Matched, match, refuse, same_source
from perceptloss.compare.panel import Asked, parse_critics, unfit
from perceptloss.compare.results import Flag, ImageRecord
from perceptloss.compare.settings import Pairing, Settings
from perceptloss.compare.sizes import judged_sizes, mismatches, outputs, size_flags, too_small
from perceptloss.compare.sources import find_sets, layout_hint
from perceptloss.compare.views import paired
from perceptloss.critic import Critic
from perceptloss.errors import ConfigError, near

__all__ = ["Plan", "make_plan"]

_TRUTH: Final = re.compile(r"(gt|hr|ground[-_ ]?truth|targets?|refs?|references?)([-_]?(mod|x)\d+)?", re.IGNORECASE)


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
    is_scored: bool = True,
) -> Plan:
    """Check all that can be checked without weights; critics may only lack where nothing is scored.

    Raises:
        ConfigError: listing what is wrong with names, critics and settings.
        PairingError: listing what is wrong with the images.
    """
    require_pillow()
    names = tuple(systems)
    wrong = _wrong_names(names, baseline)
    asked = parse_critics(critics) if critics or is_scored else []
    wrong += unfit(asked, settings, has_reference=reference is not None, has_pairs=rules.stereo)
    if wrong:
        raise ConfigError(wrong, "the comparison")
    sets, matched, problems = _pair(systems, reference, rules)
    records, more = _inspect(sets, matched, rules, settings, has_reference=reference is not None)
    sizes = tuple(judged_sizes(record, settings) for record in records)
    cards = [entry.card for entry in asked]
    refuse([*problems, *more, *mismatches(records, names, settings), *too_small(cards, records, sizes)])
    return Plan(
        systems=names,
        baseline=(baseline or names[0]) if len(names) > 1 else None,
        asked=tuple(asked),
        images=records,
        sizes=sizes,
        left_out=matched.left_out,
        flags=(*_swapped({images.name: images.source for images in sets}), *_flags(records, names, settings)),
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
    sets, problems = find_sets(given, rules)
    if any(not images.files for images in sets):
        refuse([*problems, *layout_hint(given, rules)])  # everything would be missing
    matched, more = match(sets, rules)
    return sets, matched, [*problems, *same_source(sets), *more, *(layout_hint(given, rules) if more else [])]


def _inspect(
    sets: Sequence[ImageSet], matched: Matched, rules: Pairing, settings: Settings, *, has_reference: bool
) -> tuple[tuple[ImageRecord, ...], list[str]]:
    """Records of the matched images whose files are good, and all problems of the others.

    Unmatched files are inspected too, so that one run tells everything, unless they may be left out.
    """
    wanted = [(n, key) for n, images in enumerate(sets) for key in images.files]
    if rules.allow_missing or all(images.is_file for images in sets):
        wanted = [(n, key) for n in range(len(sets)) for key in matched.keys]
    paths = {(n, key): sets[n].paths(key) for n, key in wanted}
    files, problems = inspect_all([p for views in paths.values() for p in views if not trouble(p)], settings.policy)
    good = {}
    for (n, key), views in paths.items():
        found = [files[path] for path in views if path in files]
        if len(found) == len(views):
            good[n, key], more = paired(f"{sets[n].name}: {key!r}", found)
            problems += more
    records = []
    for key in matched.keys:
        row = [good[n, key] for n in range(len(sets)) if (n, key) in good]
        if len(row) == len(sets):
            outputs, last = (row[:-1], row[-1]) if has_reference else (row, None)
            records.append(ImageRecord(key, tuple(outputs), last))
    return tuple(records), problems


def _swapped(sources: Mapping[str, str]) -> list[Flag]:
    """Systems whose folder is called as references are, where that of the references is not."""
    if REFERENCE not in sources or _TRUTH.fullmatch(Path(sources[REFERENCE]).name):
        return []
    return [
        Flag(
            "swapped",
            f"{name} is read from {source!r} and the reference from {sources[REFERENCE]!r}: are they swapped?",
            name,
        )
        for name, source in sources.items()
        if name != REFERENCE and _TRUTH.fullmatch(Path(source).name)
    ]


def _flags(records: Sequence[ImageRecord], names: Sequence[str], settings: Settings) -> list[Flag]:
    flags = []
    for record in records:
        reference = record.reference
        for name, file in zip(names, outputs(record), strict=True):
            if reference and file.digest == reference.digest:
                flags.append(
                    Flag("identical", f"{name}: {record.key!r} is the reference file itself", name, record.key)
                )
        flags += size_flags(record, names, settings)
    hashes = [tuple(outputs(record)[n].digest for record in records) for n in range(len(names))]
    for same in (h for h, count in Counter(hashes).items() if count > 1):
        twins = [name for name, own in zip(names, hashes, strict=True) if own == same]
        flags.append(Flag("same-system", f"{' and '.join(twins)} have equal files for every image", twins[0]))
    return flags
