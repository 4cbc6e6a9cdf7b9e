"""Full-reference critics on one trunk: LPIPS, DISTS, A-DISTS, DeepDC, DeepWSD, PieAPP."""

from __future__ import annotations

import torch
from torch import Tensor

from perceptloss.critics.a_dists import channel_weights, structure_probability
from perceptloss.critics.deepdc import centred_distances

from ..case import Case, Row
from ..run import Reader, Run, System


def _tap(name: str) -> Reader:
    return lambda run, row, *groups: run.tap(row, name.format(*groups))


_LAST = {"1": 2, "2": 2, "3": 3, "4": 3, "5": 3}  # convolution of each stage of a VGG16
_STAGES: dict[str, Reader] = {
    r"stage([1-5]) output, distorted": lambda run, row, n: run.tap(row, f"relu{n}_{_LAST[n]}")
}
_LPIPS = {
    r"(first|last) tap \(features of the distorted image\)": lambda run, row, which: run.tap(
        row, run.critic.taps[0 if which == "first" else -1]
    ),
    "weighted spatial mean per tap, one row per tap": lambda run, row: run.critic.distances(*run.features(row.input)),
    r"spatial map \(bilinear, input size\)": lambda run, row: run.critic.maps(*run.pair(row.input)),
}


def _guide(run: Run, row: Row) -> list[Tensor]:
    """Levels of the reference."""
    return run.critic.levels(run.pair(row.input)[1], run.features(row.input)[1])


_ADISTS = {
    r"probability of structure, level ([0-5])": lambda run, row, n: structure_probability(
        _guide(run, row), run.critic.window
    )[int(n)],
    r"weights of channels, level ([0-5])": lambda run, row, n: channel_weights(_guide(run, row))[int(n)],
}


def _raw(run: Run, row: Row) -> list[dict[str, Tensor]]:
    return [run.critic.trunk(image, run.critic.taps) for image in run.pair(row.input)]


_DEEPDC = {
    r"tap [1-4] \(conv(\d_\d)\), distorted": _tap("relu{0}"),
    r"tap 5 \(conv(\d_\d)\), distorted": _tap("conv{0}"),
    r"double-centred distance matrix of tap ([1-5]), distorted": lambda run, row, n: centred_distances(
        run.tap(row, run.critic.taps[int(n) - 1])
    ),
    "distance correlation per tap": lambda run, row: run.critic.correlations(*_raw(run, row)),
}


def _levels(run: Run, row: Row) -> Tensor:
    return run.critic.distances(*run.pair(row.input), *run.features(row.input))


def _test_form(run: Run, row: Row) -> Tensor:
    """log(score + 1), squared if the image was shrunk."""
    logarithm = torch.log(run.score(row.input) + 1)
    return logarithm if run.critic.factor(run.pair(row.input)[0]) == 1 else logarithm.square()


def _is_mixed(case: Case, row: Row) -> bool:
    """Their columns run across the images of a batch, and one score comes out."""
    reads_all = row.quantity in ("score", "grad_score", "score_not_as_loss") or row.quantity.startswith("distance per")
    return reads_all and len(case.array(row.input)) > 1


_DEEPWSD = {
    **_STAGES,
    r"distance per level: image, stage1\.\.stage5": lambda run, row: (
        found.squeeze(1) if (found := _levels(run, row)).shape[1] == 1 else found.mT.flatten()
    ),
    "score_not_as_loss": _test_form,
    "window": lambda run, row: [run.critic.window(run.pair(row.input)[0])],
    "downsampling_factor": lambda run, row: [run.critic.factor(run.pair(row.input)[0])],
}


def _judged(run: Run, row: Row) -> tuple[Tensor, Tensor]:
    """Errors and weights of the patches of the first image, as the authors list them."""
    return run.critic.judge(*(run.taps(image[:1]) for image in run.pair(row.input)))


def _pieapp_features(run: Run, row: Row) -> Tensor:
    taps = run.taps(run.pair(row.input)[0][:1])
    return torch.cat([taps[tap].flatten(1) for tap in run.critic.taps], 1)


_PIEAPP = {
    "patch errors": lambda run, row: _judged(run, row)[0][:, None],
    "patch weights": lambda run, row: _judged(run, row)[1][:, None],
    "multi-scale features of the distorted patches": _pieapp_features,
    "coarse features of the distorted patches": lambda run, row: _pieapp_features(run, row)[:, -2048:],
}

SYSTEMS = {
    **{f"lpips-{trunk}": System(f"lpips-{trunk}", _LPIPS) for trunk in ("alex", "squeeze", "vgg")},
    **{f"st-lpips-{trunk}": System(f"st-lpips-{trunk}", _LPIPS) for trunk in ("alex", "vgg")},
    # the authors' mean colour is rounded to float32, ours to the type at hand
    "dists": System("dists", _STAGES, rtol=lambda row, dtype: 1e-5 if dtype == "float64" else None),
    "a-dists": System("a-dists", _ADISTS, rtol=lambda row, dtype: 1e-5 if dtype == "float64" else None),
    "deepdc": System("deepdc", _DEEPDC),
    "deepwsd": System("deepwsd", _DEEPWSD, alone=_is_mixed),
    "pieapp": System("pieapp", _PIEAPP),
}
