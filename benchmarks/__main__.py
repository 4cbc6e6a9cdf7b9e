"""Command line of the benchmarks: `python -m benchmarks [WHAT] [options]`; `--help` lists what there is."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch

from benchmarks import joint, latents, reference, rivals, steps, trunks
from benchmarks.cases import CASES, size_text
from benchmarks.costs import Row, measure, render
from benchmarks.critics import CriticRow
from benchmarks.critics import measure as measure_critics
from benchmarks.critics import render as render_critics
from benchmarks.precision import CRITICS, table
from benchmarks.targets import count_checks, time_checks
from benchmarks.timing import convolution_rate
from perceptloss import list_critics
from perceptloss.errors import PerceptlossError
from perceptloss.output.files import unwritable, write_atomically
from perceptloss.output.versions import versions

T = TypeVar("T")

_SIZES = [(4, 192, 192), (1, 512, 512)]
_QUICK = [(2, 64, 64)]


def _size(text: str) -> tuple[int, int, int]:
    try:
        n, height, width = map(int, text.split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected NxHxW such as 4x192x192, got {text!r}") from None
    return n, height, width


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="What a critic loss costs, beside its peers."
    )
    parser.add_argument("what", nargs="?", choices=tuple(_DO), default="costs")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="for `reference`: the published pictures")
    parser.add_argument("--set", type=Path, metavar="FOLDER", help="for `trunks`: a scored set to learn from")
    parser.add_argument("--exam", type=Path, metavar="FOLDER", help="for `trunks`: a scored set of other photographs")
    parser.add_argument("--opinions", type=Path, metavar="CSV", help="for `trunks`: people's, columns image and mos")
    parser.add_argument("--val", type=Path, metavar="FOLDER", help="for `quality`: photographs that no run sees")
    parser.add_argument(
        "--train", type=Path, metavar="FOLDER", help="for `quality`: to train on; the recipe's if left out"
    )
    parser.add_argument(
        "--runs", type=Path, help="for `quality` and `learn`: folder of the trainings; runs/WHAT if left out"
    )
    parser.add_argument(
        "--photos",
        type=Path,
        action="append",
        metavar="FOLDER",
        help="for `learn`: photographs to learn from; repeatable",
    )
    parser.add_argument(
        "--others", type=Path, action="append", metavar="FOLDER", help="for `learn`: those of the exam; repeatable"
    )
    parser.add_argument("--steps", type=int, default=700, help="for `quality`: of each training")
    parser.add_argument("--seed", type=int, action="append", help="for `quality`: repeatable; 0, 1 and 2 if left out")
    parser.add_argument("--loss", action="append", help="for `quality`: repeatable; those of its page if left out")
    parser.add_argument("--pages", type=Path, metavar="FOLDER", help="for `quality`: also table, plane and crops")
    parser.add_argument(
        "--critic",
        action="append",
        help="for `critics`, `joint`, `learn`, `peers` and `steps`: repeatable; all if left out",
    )
    parser.add_argument("--case", action="append", choices=sorted(CASES), help="repeatable; all if left out")
    parser.add_argument(
        "--size", action="append", type=_size, help="NxHxW, repeatable; 4x192x192 and 1x512x512 if left out"
    )
    parser.add_argument("--threads", type=int, help="CPU threads; torch's own choice if left out")
    parser.add_argument("--repeat", type=int, default=5, help="timed rounds after one that warms up")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers")
    parser.add_argument("--quick", action="store_true", help="one small size, one round, no promised figures")
    options = parser.parse_args(arguments)
    if options.repeat < 1 or (options.threads is not None and options.threads < 1):
        parser.error("--repeat and --threads must be at least 1")
    if options.what == "reference" and (options.pictures is None or not options.pictures.is_dir()):
        parser.error("reference needs --pictures FOLDER; docs/reference-scores.md says what belongs into it")
    if options.what == "trunks" and not (options.set and options.exam):
        parser.error("trunks needs --set FOLDER and --exam FOLDER; docs/own-critics.md says which")
    if options.what == "learn" and bool(options.photos) != bool(options.others):
        parser.error("learn needs both --photos FOLDER and --others FOLDER, or none, for photographs of scikit-image")
    options.runs = options.runs or Path("runs") / options.what
    if options.what == "quality" and not (options.val and options.val.is_dir()):
        parser.error("quality needs --val FOLDER of photographs")
    if options.json is not None and (why := unwritable(options.json)):
        parser.error(f"--json {options.json} {why}")
    options.device = torch.device(options.device)
    if options.device.type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU")
    return options


def environment(device: torch.device) -> dict[str, Any]:
    """What the seconds depend on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {**versions("torch"), "device": name, "threads": torch.get_num_threads()}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def kept(rows: Iterable[T], found: list[T]) -> Iterator[T]:
    """The rows as they come, which are in a list afterwards."""
    for row in rows:
        found.append(row)
        yield row


def shown(lines: Iterable[str]) -> None:
    """Print lines as they come."""
    for line in lines:
        print(line, flush=True)


def _costs(options: argparse.Namespace) -> dict[str, Any]:
    repeat = 1 if options.quick else options.repeat
    rows: list[Row] = []
    rate = convolution_rate(options.device)
    print(f"3x3 convolutions: {rate / 1e9:.0f} GFLOP/s; `of convolutions` is the time by that of so many operations\n")
    for size in options.size or (_QUICK if options.quick else _SIZES):
        for name in options.case or CASES:
            print(f"{name} at {size_text(size)}", flush=True)
            found = kept(measure(name, size, options.device, repeat), rows)
            shown(render(found, rate, is_cuda=options.device.type == "cuda"))
            print()
    checks = []
    if not options.quick:
        for check in (*time_checks(rows), *count_checks(options.device)):
            print(check, flush=True)
            checks.append(asdict(check))
    return {"operations_per_second": rate, "rows": [asdict(row) for row in rows], "checks": checks}


def _critics(options: argparse.Namespace) -> dict[str, Any]:
    names = options.critic or [card.name for card in list_critics()]
    side = _QUICK[0][1] if options.quick else 256
    rows: list[CriticRow] = []
    shown(
        render_critics(kept(measure_critics(names, options.device, 1 if options.quick else options.repeat, side), rows))
    )
    return {"critics": [asdict(row) for row in rows]}


def _latents(options: argparse.Namespace) -> dict[str, Any]:
    rows: list[latents.LatentRow] = []
    for size in options.size or [(1, 128, 128) if options.quick else (1, 512, 512)]:
        print(f"latents of {size_text(size)}", flush=True)
        shown(latents.render(kept(latents.measure(size, options.device), rows)))
    return {"latents": [asdict(row) for row in rows]}


def _joint(options: argparse.Namespace) -> dict[str, Any]:
    names = options.critic or joint.CRITICS
    rows: list[joint.JointRow] = []
    for size in options.size or [(1, 64, 64) if options.quick else (2, 128, 128)]:
        print(f"a step of joint critics on {size_text(size)}", flush=True)
        shown(
            joint.render(kept(joint.measure(names, size, options.device, 1 if options.quick else options.repeat), rows))
        )
    return {"joint": [asdict(row) for row in rows]}


def _precision(options: argparse.Namespace) -> dict[str, Any]:
    sizes = options.size or (_QUICK if options.quick else [(4, 96, 96)])
    found = {}
    for size in sizes:
        text, found[size_text(size)] = table(CRITICS, size, options.device)
        print(text, flush=True)
    return {"cosines": found}


def _reference(options: argparse.Namespace) -> dict[str, Any]:
    results: list[reference.Result] = []
    shown(reference.render(kept(reference.run(options.pictures), results)))
    return {"reference": [asdict(result) for result in results]}


def _libraries(options: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.libraries import table as rows  # needs kornia

    for size in options.size or [(4, 128, 128)]:
        print(rows(size, 1 if options.quick else options.repeat), flush=True)
    return {}


def _peers(options: argparse.Namespace) -> dict[str, Any]:
    names = options.critic or list(rivals.RIVALS)
    if unknown := [name for name in names if name not in rivals.RIVALS]:
        sys.exit(f"no other library is compared on {', '.join(unknown)}; there are {', '.join(rivals.RIVALS)}")
    print(f"installed: {', '.join(rivals.installed())}\n")
    rows: list[rivals.RivalRow] = []
    for size in options.size or ([(1, 192, 192)] if options.quick else [(4, 192, 192)]):
        print(size_text(size), flush=True)
        found: list[rivals.RivalRow] = []
        repeat = 1 if options.quick else options.repeat
        shown(rivals.render(kept(rivals.measure(names, size, options.device, repeat), found)))
        shown(["", "where we lose:", *(rivals.lost(found) or ["nowhere"]), ""])
        rows += found
    return {"peers": [asdict(row) for row in rows]}


def _steps(options: argparse.Namespace) -> dict[str, Any]:
    names = options.critic or steps.CRITICS
    sizes = options.size or ([(1, 192, 192)] if options.quick else steps.SIZES)
    rows: list[steps.StepRow] = []
    repeat = 1 if options.quick else options.repeat
    shown(steps.render(kept(steps.measure(names, sizes, options.device, repeat, published=not options.quick), rows)))
    return {"steps": [asdict(row) for row in rows]}


def _trunks(options: argparse.Namespace) -> dict[str, Any]:
    rows: list[trunks.TrunkRow] = []
    images = 200 if options.quick else 4000
    found = trunks.measure(options.set, options.exam, options.opinions, images, options.repeat)
    shown(trunks.render(kept(found, rows)))
    return {"trunks": [asdict(row) for row in rows]}


def _quality(options: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.quality import Proof
    from benchmarks.quality_pages import pages
    from perceptloss.compare.table import render as table_of

    losses, seeds = options.loss or Proof.losses, tuple(options.seed or (0, 1, 2))
    proof = Proof(options.runs, options.val, options.train, options.steps, seeds, losses)
    results = proof.results()
    print(table_of(results, "md"))
    if options.pages is not None:
        pages(results, options.pages)
    return {"results": json.loads(results.to_json())}


def _learn(options: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.learn import School  # needs accelerate
    from benchmarks.learned import render

    school = School(options.runs, options.photos or (), options.others or ())
    rows = list(school.rows(options.critic or ()))
    print(render(rows))
    return {"learn": [asdict(row) for row in rows]}


_DO = {
    "costs": _costs, "critics": _critics, "joint": _joint, "latents": _latents, "learn": _learn,
    "libraries": _libraries, "peers": _peers, "precision": _precision, "quality": _quality,
    "reference": _reference, "steps": _steps, "trunks": _trunks,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run and print; 0 also if a promised figure is missed, which the list says."""
    options = _options(arguments)
    torch.manual_seed(0)
    if options.threads:
        torch.set_num_threads(options.threads)
    where = environment(options.device)
    print(", ".join(f"{key} {value}" for key, value in where.items()), end="\n\n")
    try:
        results = _DO[options.what](options)
    except PerceptlossError as error:
        sys.exit(str(error))
    if options.json:
        write_atomically(options.json, json.dumps({"environment": where, **results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
