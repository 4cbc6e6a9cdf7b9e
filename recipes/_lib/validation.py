"""Whole images, restored and scored by `perceptloss.compare`, shared out over the processes."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from _lib.report import picture
from perceptloss import Card, Critic, create_critic
from perceptloss.compare import Pairing, Results, Settings, merge, score_pairs
from perceptloss.compare.panel import parse_critics
from perceptloss.compare.pixels import stored, write_png
from perceptloss.compare.plan import make_plan
from perceptloss.compare.provenance import describe_inputs
from perceptloss.compare.report import write_report
from perceptloss.compare.run import run_plan
from perceptloss.compare.table import render
from perceptloss.errors import ConfigError, MissingWeights, PerceptlossError
from perceptloss.honesty.history import Sight
from perceptloss.honesty.judges import judge_remarks
from perceptloss.honesty.reactions import Reaction
from perceptloss.honesty.watch import Watch
from perceptloss.inputs import all_finite
from perceptloss.output.files import write_atomically
from perceptloss.runs.inventory import Item
from perceptloss.runs.meters import run_facts
from perceptloss.runs.options import Val

__all__ = ["FIDELITY", "Enlarge", "Jury", "Whole", "published"]

FIDELITY = "psnr-y"  # beside the judges in every table
_REFERENCES = "ground-truth"  # folder beside those of the systems

Enlarge = Callable[[Tensor], Tensor]  # low quality, (C, h, w), to what a system makes of it
_Seen = tuple[str, Tensor, Tensor | None]
Whole = Callable[[Any], tuple[Tensor, Tensor]]  # an image to validate on as low quality and ground truth


def published(name: str) -> Critic:
    """A critic as its authors published it."""
    return create_critic(name).as_published()


@dataclass(frozen=True)
class Jury:
    """What scores restored images, and how: as 8-bit files, which is how they are delivered.

    Attributes:
        accelerator: Of the run; every method is called on all of its processes.
        critics: What stands for fidelity, judges, and the critics trained on, each once.
        trained: Names of the last.
        settings: Border and device.
        absent: Guests whose weights are not here.
        stereo: Images are stereo pairs, of which judges of single images score each view.
        has_references: Whether the ground truth is known; without it, only critics that need none are asked.
        fidelity: Name of the first critic.
    """

    accelerator: Accelerator
    critics: tuple[str | Critic, ...]
    trained: frozenset[str]
    settings: Settings
    absent: tuple[str, ...] = ()
    stereo: bool = False
    has_references: bool = True
    fidelity: str = FIDELITY

    @classmethod
    def summon(
        cls,
        accelerator: Accelerator,
        val: Val,
        trained: Sequence[Critic],
        border: int,
        judge: Callable[[str], Critic] = published,
        fidelity: Critic | str = FIDELITY,
        *,
        stereo: bool = False,
    ) -> Jury:
        """The jury of a run; builds the judges, and of the guests those that have weights here.

        Raises:
            ConfigError: if the guest that decides which weights are best has none.
        """
        watching, absent = [judge(name) for name in val.judges], []
        for name in val.guests:
            try:
                watching.append(judge(name))
            except MissingWeights:
                absent.append(name)
        if val.best in absent:
            raise ConfigError(
                [f"val.best: the weights of {val.best!r} are not here: perceptloss weights fetch {val.best}"], "options"
            )
        critics = {critic.card.name: critic for critic in (*watching, *trained)}
        settings = Settings(crop_border=border, device=str(accelerator.device))
        only_trained = frozenset(critics) - {critic.card.name for critic in watching}
        (first,) = parse_critics([fidelity])
        everyone = (fidelity, *critics.values())
        return cls(accelerator, everyone, only_trained, settings, tuple(absent), stereo=stereo, fidelity=first.name)

    def without_references(self, best: str, reaction: Reaction) -> Jury:
        """The critics of it that judge an image alone.

        Raises:
            ConfigError: if there are none, what decides which weights are best is none of them, or alarms are awaited.
        """
        if reaction != "warn":
            raise ConfigError([f"val.reaction: {reaction!r} waits for alarms, which need references"], "data.val")
        alone = tuple(entry.critic or entry.name for entry in parse_critics(self.critics) if entry.card.kind == "nr")
        names = [entry.name for entry in parse_critics(alone)] if alone else []
        left = replace(self, critics=alone, trained=self.trained & set(names), has_references=False)
        if best not in names:
            known = ", ".join(names) or "none of val.judges"
            problem = f"val.best: {best!r} needs references, which these images lack; without: {known}"
            raise ConfigError([problem], "data.val")
        return left

    @property
    def cards(self) -> dict[str, Card]:
        """Of the critics, by what they are called in tables."""
        return {entry.name: entry.card for entry in parse_critics(self.critics)}

    @property
    def smallest_side(self) -> int:
        """Least side of an image that every critic accepts without its border."""
        return max(card.min_size for card in self.cards.values()) + 2 * self.settings.crop_border

    @torch.no_grad()
    def _restored(self, enlarge: Enlarge, items: Sequence[Item], whole: Whole) -> Iterator[_Seen]:
        """Of this process's share of the images: name, restored image, ground truth if it is known."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        for start in range(0, len(items), world):
            is_spare = start + rank >= len(items)
            item = items[-1 if is_spare else start + rank]
            lq, gt = (image.to(self.accelerator.device) for image in whole(item))
            restored = enlarge(lq)  # also on a spare turn: a sharded network runs on all processes or on none
            if not is_spare:
                yield item.name, stored(restored), stored(gt) if self.has_references else None

    def means(
        self,
        enlarge: Enlarge,
        items: Sequence[Item],
        whole: Whole,
        watch: Watch | None = None,
        kept: tuple[Path, int] | None = None,
    ) -> tuple[dict[str, float | None], list[Sight]]:
        """Mean scores of one network, by critic, without files; None where a critic has no finite one.

        Args:
            enlarge: What the network makes of a low-quality image.
            items: Validation images.
            whole: Such an image as low quality and ground truth.
            watch: Looks at every image, too.
            kept: Folder of a run and step: all scores go to scores/STEP.json there, for `perceptloss report`.

        Returns:
            The means, and what the watch saw, in the order of the images' names; the same on all processes.
        """
        sights: list[tuple[str, Sight]] = []
        share, mine = _seen(self._restored(enlarge, items, whole), watch, sights), None
        if self.accelerator.process_index < len(items):
            mine = score_pairs(share, self.critics, settings=self.settings, stereo=self.stereo)
        for _ in share:  # a spare turn, where there was nothing to score
            pass
        results = self._gathered(mine)
        if kept is not None and self.accelerator.is_main_process:
            folder, step = kept
            (folder / "scores").mkdir(exist_ok=True)
            about = {**results.provenance, "run": {"step": step}}
            replace(results, provenance=about).save(folder / "scores" / f"{step}.json")
        cells = results.summary().standings[0].cells
        means = {column.label: cell.mean for column, cell in zip(results.critics, cells, strict=True)}
        return means, [sight for _, sight in sorted(gather_object(sights), key=lambda named: named[0])]

    def watch(self, reaction: Reaction) -> Watch:
        """Alarms over the critics that are trained on, with the judges as witnesses."""
        critics = {critic.card.name: critic for critic in self.critics if isinstance(critic, Critic)}
        trained = {name: critic for name, critic in critics.items() if name in self.trained}
        return Watch(trained, self.cards, reaction=reaction)

    @property
    def eye(self) -> Critic | None:
        """The first judge that says where it sees what."""
        judges = (critic for critic in self.critics if isinstance(critic, Critic) and critic.card.needs_reference)
        can_see = (c for c in judges if c.has_maps and c.card.channels == 3 and c.card.name not in self.trained)
        return next(can_see, None)

    @property
    def remarks(self) -> list[str]:
        """What a reader of the table should know of the judges."""
        judges = [card for name, card in self.cards.items() if name not in {*self.trained, self.fidelity}]
        remarks = judge_remarks([self.cards[name] for name in sorted(self.trained)], judges)
        remarks += ["no alarms: they compare with references, which these images lack"] * (not self.has_references)
        if self.absent:
            names = " ".join(self.absent)
            remarks.append(
                f"not asked, because their weights are not here: {names} (`perceptloss weights fetch {names}`)"
            )
        return ["".join(f"- {remark}\n" for remark in remarks)] if remarks else []

    def is_better(self, name: str, new: float | None, old: float | None) -> bool:
        """Whether one mean score of a critic beats another; none at all, or one that is not finite, is worst."""
        new, old = (None if mean is None or not math.isfinite(mean) else mean for mean in (new, old))
        if new is None or old is None:
            return new is not None
        return new > old if self.cards[name].better == "higher" else new < old

    def conclude(
        self,
        folder: Path,
        systems: Mapping[str, Enlarge],
        items: Sequence[Item],
        whole: Whole,
        baseline: str,
        facts: Mapping[str, Any],
        remarks: Sequence[str] = (),
        crop: tuple[int, int] = (96, 3),
    ) -> str:
        """Restore everything with every system and compare; return the table.

        Writes images/, results.md, picture.png, report.html and, last because it marks the run as finished,
        results.json, which `perceptloss.compare.load_results` and `perceptloss report` read. The ground truth is
        written as it was scored, so that the folders can be compared again with other critics.

        Args:
            folder: Of the run.
            systems: Name to function.
            items: Validation images.
            whole: Such an image as low quality and ground truth.
            baseline: Name of the system that others are compared with.
            facts: Of the run, kept under the provenance.
            remarks: Text below the table.
            crop: Side and enlargement of the crops of the picture.
        """
        images, is_main = folder / "images", self.accelerator.is_main_process
        if is_main:
            shutil.rmtree(images, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        lost = []
        for name, enlarge in systems.items():
            is_finite = True
            for key, restored, gt in self._restored(enlarge, items, whole):
                if gt is not None:
                    _write(gt, images / _REFERENCES, key)
                if is_finite := is_finite and all_finite(restored):
                    _write(restored, images / name, key)
            if not all(gather_object([is_finite])):
                lost.append(name)
        self.accelerator.wait_for_everyone()
        folders = {name: images / name for name in systems if name not in lost}
        if not folders:
            raise PerceptlossError(f"no network restores finite images: {', '.join(lost)}. log.jsonl says since when.")
        baseline = next(name for name in (baseline, *folders) if name in folders)
        rules = Pairing(recursive=True, stereo=self.stereo)
        reference = images / _REFERENCES if self.has_references else None
        plan = make_plan(folders, reference, self.critics, baseline=baseline, rules=rules, settings=self.settings)
        share = plan.share(self.accelerator.process_index, self.accelerator.num_processes)
        results = self._gathered(None if share is None else run_plan(share))
        about = {"inputs": describe_inputs(plan), "run": {**facts, **run_facts(self.accelerator)}}
        results = replace(results, provenance={**results.provenance, **about})
        text = render(results, "md")
        if lost:
            text += f"- left out, because it restores pixels that are NaN or infinite: {', '.join(lost)}\n"
        text += "".join(f"\n{remark.rstrip()}\n" for remark in remarks if remark)
        if is_main:
            picture(results, folder / "picture.png", self.eye, side=crop[0], zoom=crop[1])
            write_report(results, folder / "report.html")
            write_atomically(folder / "results.md", text)
            write_atomically(folder / "results.json", results.to_json())
        return text

    def _gathered(self, share: Results | None) -> Results:
        """The shares of all processes as one, on all of them."""
        parts: list[Results | None] = gather_object([share])
        return merge([part for part in parts if part is not None]).with_roles(self.trained)


def _write(image: Tensor, folder: Path, key: str) -> None:
    """An image as a file; a stereo pair as two, KEY_L and KEY_R."""
    for view, end in zip(image.split(3), ("",) if image.shape[0] == 3 else ("_L", "_R"), strict=True):
        write_png(view, folder / f"{key}{end}.png")


def _seen(images: Iterator[_Seen], watch: Watch | None, sights: list[tuple[str, Sight]]) -> Iterator[_Seen]:
    """The same images, after the watch has looked at them."""
    for name, restored, gt in images:
        if watch is not None and gt is not None:
            sights.append((name, watch.sight(restored, gt)))
        yield name, restored, gt
