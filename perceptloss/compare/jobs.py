"""The files of a plan as jobs: read when their turn comes, and what was read in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from torch import Tensor

from perceptloss.compare.images import ImageFile, Pixels, read_hashed
from perceptloss.compare.pairing import REFERENCE
from perceptloss.compare.pixels import as_tensor, resize
from perceptloss.compare.plan import Plan
from perceptloss.compare.results import Flag
from perceptloss.compare.scoring import Job, Loaded
from perceptloss.compare.settings import Settings
from perceptloss.errors import InputError

__all__ = ["as_decoded", "file_jobs", "seen"]

Read = Callable[[Path], tuple[Pixels, str]]


def file_jobs(plan: Plan, decoded: dict[str, str] | None = None) -> Iterator[Job]:
    """The images of a plan, system by system for each, read when their turn comes.

    Args:
        plan: What to judge, and how to read it.
        decoded: Gets the sha256 of what was read, by the path of the file.
    """
    # systems share a reference, one after another
    last = lru_cache(maxsize=2)(partial(read_hashed, policy=plan.settings.policy))
    kept = {} if decoded is None else decoded
    for index, (record, sizes) in enumerate(zip(plan.images, plan.sizes, strict=True)):
        for system, file in enumerate(record.outputs):
            if file is None:
                raise ValueError(f"image {record.key!r} has no file")
            reference = record.reference
            yield Job(
                system=system,
                image=index,
                size=sizes[system],
                load=partial(_load, file, reference, plan.settings, last, kept),
                text=f"{plan.systems[system]}: {record.key}",
                has_reference=reference is not None,
                hashes=(file.sha256, reference.sha256 if reference else None),
            )


def _load(
    file: ImageFile, reference: ImageFile | None, settings: Settings, shared: Read, decoded: dict[str, str]
) -> Loaded:
    x = as_tensor(_read(file, partial(read_hashed, policy=settings.policy), decoded))
    if reference is None:
        return Loaded(seen(x, settings), None, (decoded[file.path], None))
    y = as_tensor(_read(reference, shared, decoded))
    if file.size != reference.size:
        x = resize(x, *reference.size)
    return Loaded(seen(x, settings), seen(y, settings), (decoded[file.path], decoded[reference.path]))


def _read(file: ImageFile, read: Read, decoded: dict[str, str]) -> Pixels:
    pixels, decoded[file.path] = read(Path(file.path))
    if pixels.shape[:2] != file.size:
        was, now = ("{}x{}".format(*size) for size in (file.size, pixels.shape[:2]))
        raise InputError(
            f"{file.path}: was {was} when it was checked and is {now} now; score when nobody writes to it."
        )
    return pixels


def as_decoded(plan: Plan, decoded: Mapping[str, str]) -> Plan:
    """The plan with the hashes of what was read, and a flag for every file that was another when it was planned."""
    flags = list(plan.flags)

    def now(name: str, key: str, file: ImageFile | None) -> ImageFile | None:
        if file is None or decoded.get(file.path, file.sha256) == file.sha256:
            return file
        flags.append(Flag("changed", f"{name}: {key!r} changed while it was scored", name, key))
        return replace(file, sha256=decoded[file.path])

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
