"""What the critics among BasicSR's metrics say of each image, kept in files as `perceptloss score` writes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from basicsr.utils import get_root_logger
from torch import distributed as dist

from perceptloss.compare.columns import Column
from perceptloss.compare.panel import signature
from perceptloss.compare.provenance import provenance
from perceptloss.compare.results import ImageRecord, Results
from perceptloss.compare.run import tabulate
from perceptloss.compare.settings import Settings
from perceptloss.errors import ConfigError
from perceptloss.integrations.metrics import build_metric, listening
from perceptloss.output.files import write_atomically

__all__ = ["Kept", "scores_problems"]


def scores_problems(val: Mapping[str, Any], critics: Collection[str]) -> list[str]:
    """What is wrong with `val.scores`, beside metrics that are these critics."""
    asked = val.get("scores", False)
    if not isinstance(asked, bool):
        return [f"val.scores must be true or false, got {asked!r}"]
    if asked and not critics:
        return ["val.scores keeps what the critics under val.metrics say, but there is none: add a calculate_critic"]
    return []


@dataclass(frozen=True)
class Kept:
    """Writes `scores/DATASET/ITERATION.json` beside the other results of a run.

    Attributes:
        entries: The critics among the metrics, completed, by their labels there, in their order.
        opt: BasicSR's options.
    """

    entries: Mapping[str, Mapping[str, Any]]
    opt: Mapping[str, Any]

    @contextmanager
    def listening(self, model: Any, trained: Collection[str], current_iter: int | str, dataset: str) -> Iterator[None]:
        """Note what the metrics say while a model validates, and write it; of several processes the first writes.

        Args:
            model: BasicSR's.
            trained: Names of critics that it optimises.
            current_iter: Iteration, or the name of a test.
            dataset: Its name.

        Raises:
            ConfigError: if a model does not ask every metric once for each image.
        """
        found: dict[str, list[float]] = {}
        feed: Callable[[Mapping[str, Any]], None] = model.feed_data

        def note(data: Mapping[str, Any]) -> None:
            found[_key(data)] = []
            feed(data)

        model.feed_data = note
        try:
            with listening(lambda score: found[next(reversed(found))].append(score)):
                yield
        finally:
            model.feed_data = feed
        if self.opt["dist"]:
            shares: list[Any] = [None] * self.opt["world_size"]
            dist.all_gather_object(shares, found)
            found = {key: scores for share in shares for key, scores in share.items()}
        if self.opt["rank"] == 0 and found:
            if any(len(scores) != len(self.entries) for scores in found.values()):
                raise ConfigError(
                    [f"model {type(model).__name__} does not ask every metric once for each image"], "val.scores"
                )
            self._write(found, trained, current_iter, dataset)

    def _write(
        self, found: Mapping[str, Sequence[float]], trained: Collection[str], current_iter: int | str, dataset: str
    ) -> None:
        is_training = bool(self.opt.get("is_train"))
        if is_training:  # BasicSR validates once more after its last iteration, under the next number
            current_iter = min(int(current_iter), int(self.opt["train"].get("total_iter") or current_iter))
        home = Path(self.opt["path"]["experiments_root" if is_training else "results_root"])
        file = home / "scores" / dataset / f"{current_iter}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        results = self._results(found)
        if is_training:
            labels = {column.label for column in results.critics if column.card["name"] in trained}
            run = {"run": {"step": current_iter}}
            results = replace(results.with_roles(labels), provenance={**results.provenance, **run})
        write_atomically(file, results.to_json())
        get_root_logger().info(f"Scores of {len(found)} images of {dataset}: {file}")

    def _results(self, found: Mapping[str, Sequence[float]]) -> Results:
        keys, columns = sorted(found), self._columns()
        slots = {(0, c, i): found[key][c] for i, key in enumerate(keys) for c in range(len(columns))}
        records = tuple(ImageRecord(key, (None,)) for key in keys)
        values, flags = tabulate(slots, (self.opt["name"],), [column.label for column in columns], records)
        device = torch.device(next(iter(self.entries.values()))["device"])
        return Results(
            systems=(self.opt["name"],),
            critics=columns,
            images=records,
            values=values,
            flags=tuple(flags),
            provenance=provenance(device, ()),
        )

    def _columns(self) -> tuple[Column, ...]:
        built = [(label, entry, build_metric(entry)) for label, entry in self.entries.items()]
        names = [critic.card.name for _, _, critic in built]
        columns = []
        for label, entry, critic in built:
            name = critic.card.name
            settings = Settings(crop_border=entry.get("crop_border", 0), grey=entry.get("grey", "refuse"))
            label = name if names.count(name) == 1 else f"{name}@{label}"
            columns.append(Column(label, signature(critic, settings, "rgb"), critic.card.to_dict()))
        return tuple(columns)


def _key(data: Mapping[str, Any]) -> str:
    """Name of the image, as its ground truth is called, below the folder of its clip."""
    path, folder = (
        value if isinstance(value, str) else value[0]
        for value in (data.get("gt_path") or data["lq_path"], data.get("folder") or [""])
    )
    return (Path(folder) / Path(path).stem).as_posix()
