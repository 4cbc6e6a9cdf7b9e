"""Metrics by hand, as piq computes them: the arguments of a metric become options of our critic."""

from __future__ import annotations

from torch import nn

from perceptloss.errors import UnknownCritic
from perceptloss.registry import find_entry

from ..case import Case, Row, refuse
from ..run import System

_NAMES = {"srsim": "sr-sim", "srsimc": "sr-simc", "ssim_full_size": "ssim-full", "tv_l2": "tv"}
_FIXED = {"kernel_size": 11, "kernel_sigma": 1.5, "k1": 0.01, "k2": 0.03, "sigma_n_sq": 2.0}
_OPTIONS = {"norm_type": "norm"}


def _build(case: Case, row: Row) -> nn.Module:
    metric = str(row.metric)
    arguments = case.facts["metrics"][metric]["arguments"]
    for key, value in arguments.items():
        if key in _FIXED and value != _FIXED[key]:
            refuse(f"{metric}: {key}={value}, which is always {_FIXED[key]} in ours")
    options = {_OPTIONS.get(key, key): value for key, value in arguments.items() if key not in _FIXED}
    if metric == "ms_ssim":
        options["extend"] = "start"  # odd sides; ours by default is the authors' rule
    try:
        entry = find_entry(_NAMES.get(metric, metric.replace("_", "-")))
    except UnknownCritic:
        refuse(f"no critic of ours is the metric {metric!r}")
    return entry.build(entry.card, **options).freeze()


def _is_mixed(case: Case, row: Row) -> bool:
    """The saliency of SR-SIM is normalised by the extremes of the whole batch there."""
    return row.metric in ("srsim", "srsimc") and len(case.array(row.input)) > 1


def _rtol(row: Row, dtype: str) -> float | None:
    if row.metric in ("srsim", "srsimc"):  # piq resizes in float32, and the logarithm of weak frequencies shows it
        return 1e-3
    if row.metric in ("fsim", "fsimc") and dtype == "float32":  # the noise level is a median, the gradient of one pixel
        return 5e-3
    if row.metric == "haarpsi" and row.input == "flat areas":  # the sign of what cancels is its rounding
        return 1e-3
    return None


SYSTEM = System(_build, alone=_is_mixed, rtol=_rtol)
