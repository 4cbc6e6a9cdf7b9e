"""The files of a plan as jobs: read when their turn comes, and what was read in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from perceptloss.compare.images import ImageFile, Policy, read_hashed
from perceptloss.compare.pairing import REFERENCE
from perceptloss.compare.pixels import as_tensor, resize
from perceptloss.compare.plan import Plan
from perceptloss.compare.results import Flag
from perceptloss.compare.scoring import Job, Loaded
from perceptloss.compare.settings import Settings
from perceptloss.compare.sizes import Size, cut, judged_sizes, warn_if_shifted
from perceptloss.errors import InputError

__all__ = ["as_decoded", "file_jobs", "seen"]

Read = Callable[[ImageFile], Tensor]


def file_jobs(plan: Plan, decoded: dict[str, str] | None = None) -> Iterator[Job]:
    """The images of a plan, system by system for each, read when their turn comes.

    Args:
        plan: What to judge, and how to read it.
        decoded: Gets the sha256 of what was read, by the path of the file.
    """
    kept = {} if decoded is None else decoded
    read = partial(_read, policy=plan.settings.policy, decoded=kept)
    shared = _Last(read)  # systems share a reference, one after another
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
                load=partial(_load, file, reference, plan.settings, read, shared, kept, sizes[system], text, is_own),
                text=text,
                has_reference=reference is not None,
                hashes=(file.digest, reference.digest if reference else None) if is_own else None,
            )


def _load(
    file: ImageFile,
    reference: ImageFile | None,
    settings: Settings,
    read: Read,
    shared: Read,
    decoded: Mapping[str, str],
    size: Size,
    text: str,
    is_own: bool,
) -> Loaded:
    y = None if reference is None else shared(reference)
    x = read(file)
    if y is not None and settings.resize == "to-ref" and x.shape != y.shape:
        x = resize(x, y.shape[-2], y.shape[-1])
    if settings.crop != "never":
        if y is not None and x.shape != y.shape and not settings.modulus:
            warn_if_shifted(x, y, text, settings)
        whole = size[0] + 2 * settings.crop_border, size[1] + 2 * settings.crop_border
        x, y = cut(x, whole, settings), None if y is None else cut(y, whole, settings)
    hashes = (_now(file, decoded).digest, None if reference is None else _now(reference, decoded).digest)
    return Loaded(seen(x, settings), None if y is None else seen(y, settings), hashes if is_own else None)


class _Last:
    """A reader that keeps the last image, and lets go of it before it reads another."""

    def __init__(self, read: Read) -> None:
        self.read = read
        self.file: ImageFile | None = None
        self.image: Tensor | None = None

    def __call__(self, file: ImageFile) -> Tensor:
        if self.image is None or file != self.file:
            self.image = None
            self.file, self.image = file, self.read(file)
        return self.image


def _read(file: ImageFile, policy: Policy, decoded: dict[str, str]) -> Tensor:
    """(3, H, W), or (6, H, W) of a stereo pair: left view, right view."""
    views = []
    for view in file.files:
        pixels, decoded[view.path] = read_hashed(Path(view.path), policy)
        if pixels.shape[:2] != view.size:
            was, now = ("{}x{}".format(*size) for size in (view.size, pixels.shape[:2]))
            raise InputError(
                f"{view.path}: was {was} when it was checked and is {now} now; score when nobody writes to it."
            )
        views.append(as_tensor(pixels))
    return torch.cat(views) if len(views) > 1 else views[0]


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
