"""The critics among BasicSR's validation metrics: checked, completed and built at start-up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from basicsr.utils.dist_util import get_dist_info
from basicsr.utils.logger import get_root_logger
from basicsr.utils.registry import METRIC_REGISTRY

from perceptloss.card import Card
from perceptloss.errors import ConfigError, near
from perceptloss.integrations.basicsr.options import grey_output
from perceptloss.integrations.basicsr.scores import scores_problems
from perceptloss.integrations.metrics import METRIC, build_metric, check_metric, metric_names

__all__ = ["prepare_metrics"]


def prepare_metrics(opt: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Check the critics among `val.metrics`, complete their options, and build them now.

    BasicSR takes higher for better unless told, calls metrics for the first time after
    thousands of iterations, and validates on rank 0 only.

    Args:
        opt: BasicSR's options; `better` and `device` are filled in.

    Returns:
        The critics among the metrics, completed, by their labels.

    Raises:
        ConfigError: with every problem.
        WeightsError: if a critic's weights are missing.
    """
    metrics = (opt.get("val") or {}).get("metrics") or {}
    names, problems = metric_names(), []
    why = grey_output(opt)
    ours: list[tuple[str, dict[str, Any], dict[str, Any], Card]] = []
    for label, entry in metrics.items():
        kind = str(entry.get("type"))
        if kind in names or kind == METRIC:
            full = {"critic": names[kind], **entry} if kind in names else dict(entry)
            card, found = check_metric(full)
            found += _without_reference(card, opt) if card else []
            if why and entry.get("grey") != "replicate":
                found.append(f"{why}, but critics judge colour images: say grey: replicate")
            problems += [f"val.metrics.{label}: {problem}" for problem in found]
            if card is not None:
                ours.append((label, entry, full, card))
        elif kind not in METRIC_REGISTRY and kind.startswith("calculate_cri"):
            problems.append(f"val.metrics.{label}: unknown type {kind!r}{near(kind, [METRIC, *names])}")
    problems += scores_problems(opt.get("val") or {}, [label for label, *_ in ours])
    if problems:
        raise ConfigError(problems, "the BasicSR config")
    for label, entry, full, card in ours:
        entry.setdefault("device", "cuda" if opt.get("num_gpu") else "cpu")
        if "better" not in entry:
            entry["better"] = card.better
            if card.better == "lower":
                get_root_logger().info(f"val.metrics.{label}: better: lower, from the card of {card.name!r}")
        if get_dist_info()[0] == 0:
            build_metric({**full, **entry})
    return {label: {**full, **entry} for label, entry, full, _ in ours}


def _without_reference(card: Card, opt: Mapping[str, Any]) -> list[str]:
    return [
        f"critic {card.name!r} compares with a reference, but {phase} (SingleImageDataset) has none"
        for phase, dataset in (opt.get("datasets") or {}).items()
        if card.needs_reference
        and phase.split("_")[0] in ("val", "test")
        and dataset.get("type") == "SingleImageDataset"
    ]
