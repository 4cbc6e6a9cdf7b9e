"""Learning from people: datasets of images with opinion scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from perceptloss.compare.images import inspect_all
from perceptloss.errors import ConfigError
from perceptloss.runs.config import option
from perceptloss.teach.data import Opinion, OpinionsError, OpinionSet, read_opinions
from perceptloss.teach.data.pictures import TAUGHT
from perceptloss.teach.leaks.hashing import Fingerprints, find_duplicates, fingerprint_files
from perceptloss.teach.run.photos import Photos, cut
from perceptloss.teach.run.sources import Batch, Exam, Opened, Setting, SourceOptions

__all__ = ["Opinions", "Options", "held_apart", "open_source", "picture_problems", "sizes_of"]


@dataclass(frozen=True)
class Options(SourceOptions):
    """A dataset of opinions; its items are its images. Targets are opinions as a share of the scale, 1 is best."""

    layout: str = option("csv", "how the dataset is laid out; see perceptloss.teach.data")
    root: str = option("", "its folder")
    layout_options: dict[str, Any] = option({}, "options of the layout's reader")  # noqa: RUF009
    clean: float = option(
        0.0, "probability that an image is replaced by its reference, without a target; for `identity`", at_least=0
    )
    cache_mb: int = option(512, "memory for decoded images, MiB", at_least=0)
    split_seed: int = option(0, "of the split into what is taught and the exam", at_least=0)
    look_alikes: Literal["refuse", "together", "allow"] = option(
        "refuse", "photographs that are taught and examined, in disguise too: refuse them, keep such in one part, allow"
    )
    draw: Literal["contents", "images"] = option(
        "contents", "a batch is contents x versions images: so many of each photograph, or any"
    )


class Opinions:
    """What is taught of a dataset; references come if the critic needs them.

    Args:
        opinions: Of images to learn from.
        options: Of the source.
        setting: Of the run.
    """

    def __init__(self, opinions: OpinionSet, options: Options, setting: Setting) -> None:
        self.opinions, self.options, self.setting = opinions, options, setting
        self.photos = Photos(options.cache_mb)
        self.columns = Columns.of(opinions)
        self.kinds = self.columns.kinds
        has_levels = bool((self.columns.group >= 0).any())
        self.gives = frozenset(
            {"target"}
            | ({"references"} if setting.with_reference else set())
            | ({"kinds"} if self.kinds else set())
            | ({"levels"} if has_levels or options.clean else set())
            | ({"clean"} if options.clean else set())
        )

    @property
    def content_ids(self) -> np.ndarray:
        """What a batch is spread over: the photograph of each item, or the item itself."""
        return self.columns.content if self.options.draw == "contents" else np.arange(len(self))

    def __len__(self) -> int:
        return len(self.opinions)

    def batch(self, indices: Sequence[int], generator: torch.Generator) -> Batch:
        """Images of the items, cut to the largest of `crops` at random."""
        rows = np.asarray(indices, dtype=int)
        is_clean = torch.rand(len(rows), generator=generator) < self.options.clean
        opinions = [
            _reference(self.opinions[int(i)]) if c else self.opinions[int(i)]
            for i, c in zip(rows, is_clean, strict=True)
        ]
        pairs = [read(self.photos, opinion, self.setting) for opinion in opinions]
        if self.options.crops:
            places = [cut(x, max(self.options.crops), generator) for x, _ in pairs]
            pairs = [
                (x[:, r, c], None if y is None else y[:, r, c]) for (x, y), (r, c) in zip(pairs, places, strict=True)
            ]
        x, y = stacked(pairs)
        c = self.columns
        return Batch(
            x,
            y,
            torch.from_numpy(c.target[rows]).float().masked_fill(is_clean, torch.nan),
            torch.from_numpy(c.content[rows]),
            torch.from_numpy(rows),
            torch.from_numpy(c.group[rows]).masked_fill(is_clean, -1),
            torch.from_numpy(c.level[rows]).masked_fill(is_clean, 0),
            torch.from_numpy(c.kind[rows]).masked_fill(is_clean, -1),
            self.options.label,
        )


@dataclass(frozen=True)
class Columns:
    """What a set says about its images, as numbers; see `Batch`."""

    target: np.ndarray
    content: np.ndarray
    group: np.ndarray
    level: np.ndarray
    kind: np.ndarray
    kinds: tuple[str, ...]

    @classmethod
    def of(cls, opinions: OpinionSet) -> Columns:
        """Of all opinions, in their order."""
        low, high = opinions.range
        distortions = np.array([o.distortion or "" for o in opinions])
        kinds = tuple(sorted(set(distortions.tolist()) - {""}))
        number = {name: i for i, name in enumerate(kinds)}
        content = np.unique([o.content for o in opinions], return_inverse=True)[1].astype(np.int64)
        kind = np.array([number.get(name, -1) for name in distortions], dtype=np.int64)
        has_level = np.array([o.level is not None for o in opinions]) & (kind >= 0)
        return cls(
            target=(opinions.higher().scores - low) / (high - low),
            content=content,
            group=np.where(has_level, content * max(1, len(kinds)) + kind, -1),
            level=np.array([np.nan if o.level is None else float(o.level) for o in opinions]),
            kind=kind,
            kinds=kinds,
        )


def read(photos: Photos, opinion: Opinion, setting: Setting) -> tuple[Tensor, Tensor | None]:
    """Judged image and, where it is needed, reference, (C, H, W), uint8; six channels for a stereo pair."""
    card = setting.card

    def views(left: Path | None, right: Path | None) -> Tensor:
        assert left is not None and (card.channels == 3 or right is not None)  # which `_problems` has checked
        if card.channels == 3 or right is None:
            return photos[left]
        if left == right:  # both views side by side in one file
            return torch.cat(photos[left].chunk(2, -1))
        return torch.cat([photos[left], photos[right]])

    x = views(opinion.image, opinion.image_right)
    return x, views(opinion.reference, opinion.reference_right) if setting.with_reference else None


def _reference(opinion: Opinion) -> Opinion:
    """The reference as the judged image."""
    assert opinion.reference is not None  # which `_problems` has checked
    return replace(opinion, image=opinion.reference, image_right=opinion.reference_right)


def stacked(pairs: Sequence[tuple[Tensor, Tensor | None]]) -> tuple[Tensor, Tensor | None]:
    """One batch of images of equal size."""
    x = torch.stack([x for x, _ in pairs])
    return x, None if pairs[0][1] is None else torch.stack([y for _, y in pairs if y is not None])


def open_source(options: Options, setting: Setting) -> Opened:
    """Read the dataset, check its files, and divide it by content into what is taught and an exam."""
    if not options.root:
        raise ConfigError(["root: where is the dataset?"], options.label)
    everything = read_opinions(options.layout, Path(options.root), **options.layout_options)
    everything.check()
    sizes = sizes_of(everything)
    if problems := _problems(everything, sizes, options, setting):
        raise ConfigError(problems, options.label)
    if options.look_alikes == "together":
        everything = setting.on_main(lambda: held_apart(everything))
    parts: dict[str, OpinionSet] = {"exam": everything} if setting.is_exam else {"taught": everything}
    if not setting.is_exam and options.hold_out:
        parts = everything.split({"taught": 1 - options.hold_out, "exam": options.hold_out}, options.split_seed)
    taught, exam = parts.get("taught"), parts.get("exam")
    return Opened(
        None if taught is None else Opinions(taught, options, setting),
        [] if exam is None else [_exam(exam, sizes, options, setting)],
        None if taught is None or options.look_alikes == "allow" else _prints(taught),
        None if exam is None or options.look_alikes == "allow" else _prints(exam),
    )


def held_apart(opinions: OpinionSet) -> OpinionSet:
    """The same opinions, of which photographs that look alike, damaged too, are one content and so never split."""
    prints = _prints(opinions)
    first = {content: content for content in opinions.contents}
    shown = {str(o.reference or o.image): o.content for o in opinions}

    def root(content: str) -> str:
        while first[content] != content:
            content = first[content]
        return content

    for pair in find_duplicates(prints, prints):
        a, b = sorted(root(shown[name]) for name in (pair.a_name, pair.b_name))
        first[b] = a
    joined = (replace(o, content=root(o.content)) for o in opinions)
    return OpinionSet(opinions.name, joined, opinions.higher_better, opinions.range)


def sizes_of(opinions: OpinionSet, *, decode: bool = False) -> dict[Path, tuple[int, int]]:
    """Height and width of every picture of a set, from the headers, or from decoding them whole.

    Raises:
        OpinionsError: listing the files that cannot be read.
    """
    files, problems = inspect_all(opinions.files(), TAUGHT, decode=decode)
    if problems:
        raise OpinionsError(problems, opinions.name)
    return {path: file.size for path, file in files.items()}


def _problems(
    opinions: OpinionSet, sizes: dict[Path, tuple[int, int]], options: Options, setting: Setting
) -> list[str]:
    card = setting.card
    problems: list[str] = []
    if (setting.with_reference or options.clean) and any(o.reference is None for o in opinions):
        what = f"{card.name!r} needs" if card.needs_reference else "an objective or `clean` needs"
        problems.append(f"{what} references, which this dataset does not have for all images")
    if card.channels == 6 and any(o.image_right is None for o in opinions):
        problems.append(f"{card.name!r} judges stereo pairs, which this dataset does not have")
    if opinions.range[0] == opinions.range[1]:
        problems.append(f"all opinions are {opinions.range[0]:g}: there is nothing to learn")
    if not setting.is_exam and options.hold_out and len(set(opinions.contents)) < 2:
        problems.append(f"hold_out: {options.hold_out} of one photograph leaves none to learn from; say 0")
    judged = {sizes[o.image] for o in opinions}
    if not setting.is_exam and not options.crops and len(judged) > 1:
        problems.append("crops: images have different sizes; give the side of the squares to learn from")
    least = max([card.min_size, *([] if setting.is_exam else options.crops)])
    return problems + picture_problems(opinions, sizes, least)


def picture_problems(opinions: OpinionSet, sizes: dict[Path, tuple[int, int]], least: int) -> list[str]:
    """Judged images below a side, and pictures of one row that differ in size."""
    small = [
        f"{path}: {h}x{w}; at least {least}x{least} are needed"
        for path in dict.fromkeys(o.image for o in opinions)
        for h, w in [sizes[path]]
        if min(h, w) < least
    ]
    unequal = [
        "{}: {}x{}, but {} is {}x{}; they must be of one size".format(other, *sizes[other], o.image, *sizes[o.image])
        for o in opinions
        for other in o.files[1:]
        if sizes[other] != sizes[o.image]
    ]
    return small + unequal


def _prints(opinions: OpinionSet) -> Fingerprints:
    """Of references, or of the images themselves where there are none; one for each content and file."""
    return fingerprint_files(sorted({o.reference or o.image for o in opinions}))


def _exam(opinions: OpinionSet, sizes: dict[Path, tuple[int, int]], options: Options, setting: Setting) -> Exam:
    card = setting.card
    photos, columns = Photos(0), Columns.of(opinions)

    def images(rows: np.ndarray) -> tuple[Tensor, Tensor | None]:
        m = card.multiple_of
        pairs = [read(photos, opinions[int(i)], setting) for i in rows]
        fitting = [(x.shape[-2] // m * m, x.shape[-1] // m * m) for x, _ in pairs]
        return stacked(
            [(x[:, :h, :w], None if y is None else y[:, :h, :w]) for (x, y), (h, w) in zip(pairs, fitting, strict=True)]
        )

    m = card.multiple_of
    how = f", cut to multiples of {m} pixels" if m > 1 else ""
    return Exam(
        name=options.label,
        target=columns.target,
        content=columns.content,
        reference=np.arange(len(opinions)),
        group=columns.group,
        level=columns.level,
        family=np.array([o.distortion or "" for o in opinions]),
        unseen=frozenset(),
        images=images,
        batch=8 if len({sizes[o.image] for o in opinions}) == 1 else 1,
        about=f"{len(opinions)} whole images of {len(np.unique(columns.content))} contents of {opinions.name}{how}; "
        "targets are opinions of people.",
        fit="logistic4",
    )
