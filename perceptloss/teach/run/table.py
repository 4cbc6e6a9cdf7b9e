"""A table of one's own: every other option of a run follows from it, and is said before training begins."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from perceptloss import Card, Critic, get_card
from perceptloss.compare.statistics.measures import srcc
from perceptloss.compare.statistics.paired import ProtocolError
from perceptloss.critics.mini.viewing import TRUNK
from perceptloss.errors import ConfigError, UnknownCritic
from perceptloss.output.names import visible
from perceptloss.runs.config import option
from perceptloss.teach.data import OpinionSet, read_opinions
from perceptloss.teach.run.critic import quality_of
from perceptloss.teach.run.opinions import held_apart, picture_problems, sizes_of
from perceptloss.teach.run.sources import Source

__all__ = ["Plan", "Table", "plan", "refuse_upside_down"]

_ROWS = 30  # fewer teach nothing, and examine nothing
_SPLIT = 0.3, 0.2  # held out of few rows, and of `_MANY`
_MANY = 100
_CROP = 128
_BATCH = 16
_RATE = 1e-6, 2e-5, 3e-4  # per image, least and most: few images bear few changes
_FASTER = {"mini-fr": 10, "mini-stereo": 10}  # softplus keeps their weights positive, and moves them slowly
_CACHE_MB = 2048
_ASKED = 256  # images that tell whether a table is upside down
_SIGMAS = 3.0


@dataclass(frozen=True)
class Table:
    """A table of one's own, from which every option that is not given follows."""

    path: str = option("", "CSV of image,mos and perhaps reference, content: all that has to be given")
    better: Literal["higher", "lower"] | None = option(
        None, "which scores are of the better pictures; nothing: higher, of a column dmos lower"
    )
    hold_out: float | None = option(
        None,
        "share of the rows that is examined and never taught; nothing: 0.3, of 100 rows and more 0.2",
        above=0,
        below=1,
    )
    crop: int | None = option(
        None, "side of the squares to learn from, pixels; nothing: 128, or what the smallest picture allows", at_least=1
    )
    batch: int | None = option(None, "images in a step; nothing: 16, or all where there are fewer", at_least=2)


@dataclass(frozen=True)
class Plan:
    """What follows from a table.

    Attributes:
        defaults: Options by their dotted keys.
        about: What is in the table, and which critic goes with it.
        parts: How it is divided.
        squares: Why the squares are not of the usual side; mostly empty.
        is_sure: Whether it was said which scores are better.
    """

    defaults: Mapping[str, Any]
    about: str
    parts: str
    squares: str
    is_sure: bool

    def told(self, options: Mapping[str, Any]) -> str:
        """What will be done with the options by dotted key, those that were given included, as a paragraph."""
        entry = options["data"][0]
        weights = options["critic.weights"]
        start = {"default": "the weights that come with it", None: "random weights"}.get(weights, weights)
        return (
            f"{self.about} {options['critic.name']} starts from {start}, and learns from {self.parts} It takes "
            f"{options['train.steps']} steps of {entry['contents'] * _processes()} squares of {entry['crops'][0]} "
            f"pixels{self.squares}, mirrored at random, to raise {' + '.join(options['objectives'])} with a learning "
            f"rate of {options['train.lr']:g}. Everything goes to {visible(options['output'])}. To change any of this: "
            "--critic.name, --critic.weights, --table.better, --table.hold_out, --table.crop, --table.batch, "
            "--train.steps, --train.lr, --objectives, --output."
        )


def plan(table: Table, name: str, steps: int) -> Plan:
    """Look at everything in a table, and decide.

    Args:
        table: Its options.
        name: Of the critic; empty if none was asked for.
        steps: Of training; 0 if none were asked for.

    Raises:
        ConfigError: listing what is wrong with the table or its pictures, and what cannot be done with it.
    """
    if not Path(table.path).is_file():
        raise ConfigError([f"--table.path: {table.path} is not a file"], "options")
    asked = {} if table.better is None else {"higher_better": table.better == "higher"}
    everything = read_opinions("csv", table.path, **asked)
    if problems := _row_problems(everything):
        raise ConfigError(problems, table.path)
    card, why = _chosen(name, everything)
    sizes = sizes_of(everything, decode=True)
    if problems := _fit_problems(card, everything) + picture_problems(everything, sizes, card.min_size):
        raise ConfigError(problems, f"{table.path} for {card.name!r} ({why}; --critic.name chooses another)")
    crop, squares = _crop(table, card, everything, sizes)
    hold_out, look_alikes, said, (taught, exam) = _split(table, everything)
    batch = min(table.batch or _BATCH, len(taught))
    each, slowest, fastest = _RATE
    rate = min(max(each * len(taught), slowest), fastest) * _FASTER.get(card.name, 1)
    steps = steps or round(20 * math.sqrt(len(taught)))
    stem, kind = Path(table.path).stem, "higher" if everything.higher_better else "lower"
    low, high = everything.range
    about = f"{visible(table.path)}: {_counted(everything)}, scores from {low:g} to {high:g}, {kind} is better; {why}."
    parts = f"{_counted(taught)}; {_counted(exam)} are never taught, and examined whole before and after.{said}"
    entry = {
        "kind": "opinions",
        "layout": "csv",
        "root": table.path,
        "name": stem,
        "layout_options": {"higher_better": everything.higher_better},
        "hold_out": hold_out,
        "look_alikes": look_alikes,
        "draw": "images",
        "contents": max(1, batch // _processes()),
        "versions": 1,
        "crops": [crop],
        "turns": "mirror",
        "cache_mb": min(_CACHE_MB, math.ceil(sum(3 * h * w for h, w in sizes.values()) / 2**20)),
    }
    defaults = {
        "output": f"runs/critic-{stem}",
        "critic.name": card.name,
        "critic.weights": "default",
        "critic.fixed": ["trunk.*"] if TRUNK in card.weights else [],
        "data": [entry],
        "objectives": {"pearson": 1.0},
        "train.steps": steps,
        "train.lr": float(f"{rate:.1g}"),
        "train.warmup": min(20, steps // 5),
        "train.ema": 0.98,
        "val.every": 0,
        "log.every": 10,
        "log.checkpoint_every": 100,
        **_card(table, card, taught),
    }
    return Plan(defaults, about, parts, squares, table.better is not None)


def refuse_upside_down(critic: Critic, source: Source, device: torch.device) -> None:
    """Stop where critic and scores contradict each other by more than chance would do.

    Args:
        critic: With the weights it starts from.
        source: What it would learn from.
        device: Where the critic is.

    Raises:
        ConfigError: naming the option that says which scores are better.
    """
    generator = torch.Generator().manual_seed(0)
    rows = torch.randperm(len(source), generator=generator)[:_ASKED].tolist()
    batches = [source.batch(rows[i : i + _BATCH], generator) for i in range(0, len(rows), _BATCH)]
    targets = np.concatenate([b.target.numpy() for b in batches if b.target is not None])
    with torch.no_grad():
        judged = [
            quality_of(critic, *(None if i is None else i.to(device).float().div_(255) for i in (b.x, b.y)))  # type: ignore[arg-type]
            for b in batches
        ]
    try:
        found = srcc(torch.cat(judged), targets)
    except ProtocolError:
        return
    if found < -max(0.3, _SIGMAS / math.sqrt(len(rows) - 1)):
        raise ConfigError(
            [
                f"the starting weights of {critic.card.name!r} rank its pictures the other way round (SRCC {found:.2f} "
                f"on {len(rows)} images): give --table.better lower if lower scores are of better pictures, as in a "
                "DMOS, or --table.better higher if it should learn this all the same"
            ],
            "the table",
        )


def _row_problems(opinions: OpinionSet) -> list[str]:
    problems = []
    if len(opinions) < _ROWS:
        problems.append(
            f"{len(opinions)} rows; at least {_ROWS} are needed to learn from some and to examine on others"
        )
    elif opinions.range[0] == opinions.range[1]:
        problems.append(f"all scores are {opinions.range[0]:g}, so there is nothing to learn")
    return problems


def _chosen(name: str, opinions: OpinionSet) -> tuple[Card, str]:
    """The critic to go on with, and why."""
    with_reference = sum(o.reference is not None for o in opinions)
    if name:
        try:
            return get_card(name), "which was asked for"
        except UnknownCritic as error:
            raise ConfigError([f"--critic.name: {error}"], "options") from None
    if all(o.image_right is not None and o.reference_right is not None for o in opinions):
        return get_card("mini-stereo"), "all rows are stereo pairs with references"
    if with_reference == len(opinions):
        return get_card("mini-fr"), "all rows have a reference"
    why = (
        f"only {with_reference} of {len(opinions)} rows have a reference"
        if with_reference
        else "no row has a reference"
    )
    return get_card("mini-nr"), why


def _fit_problems(card: Card, opinions: OpinionSet) -> list[str]:
    """What a critic wants of every row."""
    wanted = {"reference": card.needs_reference, "image_right": card.channels == 6}
    return [
        f"{card.name!r} needs the column {column} filled in all rows, and {count} lack it"
        for column, is_wanted in wanted.items()
        if is_wanted and (count := sum(getattr(o, column) is None for o in opinions))
    ]


def _crop(table: Table, card: Card, opinions: OpinionSet, sizes: Mapping[Path, tuple[int, int]]) -> tuple[int, str]:
    """Side of the squares, and why it is not the usual one."""
    smallest = min({o.image for o in opinions}, key=lambda path: (min(sizes[path]), str(path)))
    side, multiple = min(sizes[smallest]), card.multiple_of
    most = side // multiple * multiple
    if table.crop is None:
        return min(_CROP, most), "" if most >= _CROP else f" (the smallest side is {side}, of {visible(str(smallest))})"
    if not card.min_size <= table.crop <= most or table.crop % multiple:
        wanted = f"from {card.min_size} to {most}" + (f" and a multiple of {multiple}" if multiple > 1 else "")
        raise ConfigError(
            [f"--table.crop: expected a side {wanted}, got {table.crop}; the smallest picture is {smallest}"], "options"
        )
    return table.crop, ""


def _split(table: Table, opinions: OpinionSet) -> tuple[float, str, str, list[OpinionSet]]:
    """Share that is held out, what becomes of look-alikes, in words too, and parts of two contents or more."""
    shares = [table.hold_out] if table.hold_out else [_SPLIT[len(opinions) >= _MANY], 0.4, 0.5]
    apart, given = held_apart(opinions), len(set(opinions.contents))
    joined = given - len(set(apart.contents))
    together = f" Look-alikes are kept together, which leaves {given - joined} of {given} contents." if joined else ""
    alone = " They look so much alike that the exam shows what is taught too: expect less of new pictures."
    for candidate, look_alikes, said in ((apart, "together", together), (opinions, "allow", alone)):
        for share in shares:
            if len(set(candidate.contents)) < 4:
                break
            parts = list(candidate.split({"taught": 1 - share, "exam": share}).values())
            if all(len(set(part.contents)) > 1 and len(set(part.scores)) > 1 for part in parts):
                return share, look_alikes, said, parts
    raise ConfigError(
        [
            f"{_counted(opinions)} cannot be divided into two parts that have two contents and two scores or more "
            "each; give more contents (the column content), or another share by --table.hold_out"
        ],
        table.path,
    )


def _card(table: Table, card: Card, taught: OpinionSet) -> dict[str, Any]:
    """What the model card says where nobody wrote it."""
    file = Path(table.path).name
    return {
        "card.summary": f"{card.name}, taught what the scores of {file} say.",
        "card.licence": f"not stated: that of {file} and its pictures, and of the starting weights "
        f"({card.licence_weights or 'none'})",
        "card.sources": [{"folder": file, "use": "opinions", "licence": "not stated", "attribution": "its owner"}],
        "card.known_failures": [
            f"learned from {_counted(taught)}: pictures and damage of other kinds may be judged worse than before"
        ],
    }


def _processes() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def _counted(opinions: OpinionSet) -> str:
    return f"{len(opinions)} images of {len(set(opinions.contents))} contents"
