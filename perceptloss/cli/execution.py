"""What `score` and `compare` do: check everything, score, print, and write what was asked for."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from perceptloss.cli.analysis import Asked, asked_of, names_of, presets_of
from perceptloss.cli.options import page_problems, plan_of, unwritable_output
from perceptloss.cli.terminal import result
from perceptloss.errors import ConfigError, some
from perceptloss.output.files import unwritable
from perceptloss.output.names import visible
from perceptloss.output.progress import bar
from perceptloss.output.tables import counted, text

if TYPE_CHECKING:
    from perceptloss.compare.pairing import Images
    from perceptloss.compare.plan import Plan
    from perceptloss.compare.processes import Launched
    from perceptloss.compare.results import Results
    from perceptloss.compare.sets import SetScore
    from perceptloss.compare.thresholds import Threshold

__all__ = ["execute"]

NOT_FINITE, UNWRITTEN, THRESHOLD = 1, 2, 4
_log = logging.getLogger("perceptloss.compare")


def execute(args: argparse.Namespace, systems: Mapping[str, Images], baseline: str | None = None) -> int:
    """Check everything, score, print, and return the exit code; of launched processes only the first prints."""
    launched = _launched(args)
    plan, thresholds, asked = _check(args, systems, baseline)
    is_first = launched is None or launched.rank == 0
    if args.dry_run:
        if is_first:
            result(_describe(plan))
        return 0
    from perceptloss.compare.run import run_plan
    from perceptloss.compare.table import render, sentences
    from perceptloss.compare.thresholds import check_thresholds

    of_sets = _of_sets(args, plan) if is_first else ()
    count = plan.scores if launched is None else launched.scores(plan)
    with bar("scores", count, show=False if args.quiet else None) as shown:
        results = run_plan(
            plan,
            random_weights=args.random_weights,
            cache=args.cache,
            progress=lambda done, total: shown.update(done - shown.n),
            command=args.command_line,
            workers=args.workers,
            launched=launched,
        )
    if not is_first:
        return 0
    results = replace(asked.of(results), sets=of_sets)
    for sentence in sentences(results):
        _log.warning("%s", sentence)
    unwritten = _written("--output", args.output, results.save)
    result(render(results, args.format))
    unwritten += _written("--report", args.report, partial(_report, args, plan, results))
    failures = check_thresholds(results, thresholds)
    for failure in [*failures, *unwritten]:
        _log.error("%s", failure)
    return UNWRITTEN if unwritten else NOT_FINITE if results.has_gaps else THRESHOLD if failures else 0


def _launched(args: argparse.Namespace) -> Launched | None:
    """The place of this process among those of a launcher; all but the first say errors only and write nothing."""
    from perceptloss.compare.processes import Launched

    launched = Launched.here()
    if launched is not None:
        args.device = launched.device(args.device)
        if launched.rank:
            args.output = args.report = args.map = None
            args.content = False
            logging.getLogger("perceptloss").setLevel(logging.ERROR)
    return launched


def _of_sets(args: argparse.Namespace, plan: Plan) -> tuple[SetScore, ...]:
    """What judges of whole sets say, before anything else is scored; empty if none is asked for."""
    if getattr(args, "set_judges", None) is None:
        return ()
    from perceptloss.compare.set_judges import parse_set_judges, set_scores

    return tuple(set_scores(plan, parse_set_judges(args.set_judges)))


def _report(args: argparse.Namespace, plan: Plan, results: Results, path: str) -> None:
    from perceptloss.compare.report import quality_maps, write_report
    from perceptloss.compare.report.quality import chosen_images
    from perceptloss.honesty.comparison import content_section

    maps = None
    if args.map is not None and args.embed != "none":
        count = len(chosen_images(results)) * len(plan.systems)
        with bar("maps", count, show=False if args.quiet else None) as shown:
            maps = quality_maps(plan, results, args.map, random_weights=args.random_weights, progress=shown.update)
    more = [content_section(results)] if args.content else []
    write_report(results, path, embed=args.embed, maps=maps, more=more)


def _written(flag: str, path: str | None, write: Callable[[str], None]) -> list[str]:
    """Write a file; what went wrong, since the table can be printed all the same."""
    try:
        if path is not None:
            write(path)
    except OSError as error:
        return [f"{flag} {path!r} could not be written: {error.strerror or error}"]
    return []


def _check(
    args: argparse.Namespace, systems: Mapping[str, Images], baseline: str | None
) -> tuple[Plan, list[Threshold], Asked]:
    """Plan, thresholds, and what is asked of the scores: all that can be wrong is found before the first score."""
    from perceptloss.compare.panel import parse_critics
    from perceptloss.compare.thresholds import parse_thresholds

    wrong = []
    if args.output is not None and Path(args.output).suffix.lower() not in (".json", ".csv"):
        wrong.append(f"--output must end in .json or .csv, got {args.output!r}")
    if args.report is not None:
        wrong += page_problems(args.report, "--report")
    wrong += unwritable_output(args.output)
    if getattr(args, "set_judges", None) is not None:
        wrong += _image_by_image("--format", args.format, args.format == "csv")
        wrong += _image_by_image("--output", args.output, (args.output or "").lower().endswith(".csv"))
    sources = [*systems.values(), args.ref, args.mos, args.group, *args.scores_from, *args.votes]
    wrong += _overwritten("--output", args.output, sources)
    wrong += _overwritten("--report", args.report, sources)
    if args.cache is not None and (why := unwritable(Path(args.cache), is_folder=True)):
        wrong.append(f"--cache {args.cache!r} {why}")
    if wrong:
        raise ConfigError(wrong, "the command line")
    presets = presets_of(args)
    if getattr(args, "set_judges", None) is not None and not args.critic:
        raise ConfigError(["--set-judges stand beside critics: give one, too, such as -c psnr"], "the command line")
    names = [*(entry.name for entry in parse_critics(args.critic)), *names_of(args), *(p.name for p in presets)]
    thresholds = parse_thresholds(args.fail_if, names, has_baseline=len(systems) > 1)
    plan = plan_of(args, systems, baseline)
    if wrong := _report_problems(args, plan):
        raise ConfigError(wrong, "the command line")
    return plan, thresholds, asked_of(args, plan, presets)


def _image_by_image(flag: str, given: str, is_csv: bool) -> list[str]:
    """The problem that what judges say of whole sets has no place in a file of a row for each image."""
    why = "has a row for each image, and none for what --set-judges say of all of them"
    return [f"{flag} {given} {why}; take json, or --format summary-csv"] if is_csv else []


def _report_problems(args: argparse.Namespace, plan: Plan) -> list[str]:
    """What speaks against what is asked of a report."""
    from perceptloss.compare.report.quality import map_problems
    from perceptloss.honesty.comparison import content_problems

    asked = [flag for flag, is_asked in (("--map", args.map is not None), ("--content", args.content)) if is_asked]
    problems = [] if args.report else [f"{flag} is shown in a report: give --report" for flag in asked]
    problems += map_problems(plan, args.map) if args.map is not None else []
    return problems + (content_problems(has_reference=args.ref is not None) if args.content else [])


def _overwritten(flag: str, output: str | None, sources: Iterable[Images | None]) -> list[str]:
    """The problem that what is written is a list that the images come from."""
    given = {os.path.realpath(source) for source in sources if isinstance(source, (str, os.PathLike))}
    return [f"{flag} {output!r} would overwrite an input"] if output and os.path.realpath(output) in given else []


def _describe(plan: Plan) -> str:
    sets = [*plan.systems, *(["reference"] if plan.images[0].reference else [])]
    rows: list[tuple[str, ...]] = [("image", *sets)]
    for record in plan.images:
        files = [*record.outputs, *([record.reference] if record.reference else [])]
        rows.append((record.key, *(" + ".join(view.path for view in file.files) if file else "" for file in files)))
    factors = {"image": plan.images, "system": plan.systems, "critic": plan.asked}
    work = " x ".join(counted(len(things), name) for name, things in factors.items())
    left = [f"left out: {visible(key)} (not in {some(names)})\n" for key, names in plan.left_out.items()]
    sum_of_all = f"{work} = {counted(plan.scores, 'score')} of {plan.megapixels:.3g} megapixels together\n"
    return "".join([text(rows), *left, sum_of_all])
