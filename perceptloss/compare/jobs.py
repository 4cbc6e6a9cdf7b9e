"""The files of a plan as jobs: read when their turn comes, and what was read in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor

from perceptloss.compare.images import ImageFile, Pixels, read_hashed
from perceptloss.compare.pairing import REFERENCE
from perceptloss.compare.pixels import as_tensor, resize
from perceptloss.compare.plan import Plan
from perceptloss.compare.results import Flag
from perceptloss.compare.scoring import Job, Loaded
from perceptloss.compare.settings import Settings
from perceptloss.compare.sizes import Size, cut, judged_sizes, warn_if_shifted
from perceptloss.errors import InputError

__all__ = ["as_decoded", "file_jobs", "seen"]

Read = Callable[[Path], tuple[Pixels, str]]


def file_jobs(plan: Plan, decoded: dict[str, str] | None = None) -> Iterator[Job]:
    """The images of a plan, system by system for each, read when their turn comes.

    Args:
        plan: What to judge, and how to read it.
        decoded: Gets the sha256 of what was read, by the path of the file.
    """
    # systems share a reference, one after another, of two views perhaps
    last = lru_cache(maxsize=4)(partial(read_hashed, policy=plan.settings.policy))
    kept = {} if decoded is None else decoded
    for index, (record, sizes) in enumerate(zip(plan.images, plan.sizes, strict=True)):
        for system, file in enumerate(record.outputs):
            if file is None:
                raise ValueError(f"image {record.key!r} has no file")
            reference, text = record.reference, f"{plan.systems[system]}: {record.key}"
            # cut for the sake of another system too, a score is not that of these two files
            is_own = sizes[system] == judged_sizes(replace(record, outputs=(file,)), plan.settings)[0]
            yield Job(
                system=system,
                image=index,
                size=sizes[system],
                load=partial(_load, file, reference, plan.settings, last, kept, sizes[system], text, is_own),
                text=text,
                has_reference=reference is not None,
                hashes=(file.digest, reference.digest if reference else None) if is_own else None,
            )


def _load(
    file: ImageFile,
    reference: ImageFile | None,
    settings: Settings,
    shared: Read,
    decoded: dict[str, str],
    size: Size,
    text: str,
    is_own: bool,
) -> Loaded:
    x = _read(file, partial(read_hashed, policy=settings.policy), decoded)
    y = None if reference is None else _read(reference, shared, decoded)
    if y is not None and settings.resize == "to-ref" and x.shape != y.shape:
        x = resize(x, y.shape[-2], y.shape[-1])
    if settings.crop != "never":
        if y is not None and x.shape != y.shape and not settings.modulus:
            warn_if_shifted(x, y, text, settings)
        whole = size[0] + 2 * settings.crop_border, size[1] + 2 * settings.crop_border
        x, y = cut(x, whole, settings), None if y is None else cut(y, whole, settings)
    hashes = (_now(file, decoded).digest, None if reference is None else _now(reference, decoded).digest)
    return Loaded(seen(x, settings), None if y is None else seen(y, settings), hashes if is_own else None)


def _read(file: ImageFile, read: Read, decoded: dict[str, str]) -> Tensor:
    """(3, H, W), or (6, H, W) of a stereo pair: left view, right view."""
    views = []
    for view in file.files:
        pixels, decoded[view.path] = read(Path(view.path))
        if pixels.shape[:2] != view.size:
            was, now = ("{}x{}".format(*size) for size in (view.size, pixels.shape[:2]))
            raise InputError(
                f"{view.path}: was {was} when it was checked and is {now} now; score when nobody writes to it."
            )
        views.append(as_tensor(pixels))
    return torch.cat(views)


def _now(file: ImageFile, decoded: Mapping[str, str]) -> ImageFile:
    """The file with the hashes of what was read."""
    right = None if file.right is None else _now(file.right, decoded)
    return replace(file, sha256=decoded.get(file.path, file.sha256), right=right)


def as_decoded(plan: Plan, decoded: Mapping[str, str]) -> Plan:
    """The plan with the hashes of what was read, and a flag for every file that was another when it was planned."""
    flags = list(plan.flags)

    def now(name: str, key: str, file: ImageFile | None) -> ImageFile | None:
        if file is None or _now(file, decoded) == file:
            return file
        flags.append(Flag("changed", f"{name}: {key!r} changed while it was scored", name, key))
        return _now(file, decoded)

    images = tuple(
        replace(
            record,
            outputs=tuple(now(name, record.key, f) for name, f in zip(plan.systems, record.outputs, strict=True)),
            reference=now(REFERENCE, record.key, record.reference),
        )
        for record in plan.images
    )
    return replace(plan, images=images, flags=tuple(flags))


def seen(image: Tensor, settings: Settings) -> Tensor:
    """What critics see of an image: all but its border."""
    border = settings.crop_border
    return image[..., border:-border, border:-border] if border else image
