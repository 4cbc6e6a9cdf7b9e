"""`perceptloss report`: a page of results that `--output` saved, without scoring again; of several, over time."""

from __future__ import annotations

import argparse
from pathlib import Path

from perceptloss.cli.options import a_path, add_embed, page_problems
from perceptloss.cli.terminal import result
from perceptloss.errors import ConfigError

__all__ = ["add_parser"]


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser("report", help="a page of saved results", description=__doc__)
    parser.add_argument(
        "results",
        nargs="+",
        type=a_path,
        metavar="JSON",
        help="what --output or a recipe saved; several, of the same images by the same critics, are drawn over time",
    )
    output = parser.add_argument_group("output")
    about = "the page (default: beside the results, .html; of several: report.html)"
    output.add_argument("--output", type=a_path, metavar="FILE", help=about)
    add_embed(output)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the page and print its path."""
    from perceptloss.compare import load_results
    from perceptloss.compare.report import write_report, write_timeline
    from perceptloss.honesty.comparison import content_problems, content_section

    is_single = len(args.results) == 1
    default = Path(args.results[0]).with_suffix(".html").as_posix() if is_single else "report.html"
    output = args.output or default
    wrong = page_problems(output)
    wrong += ["--content is of one comparison, not over time"] if args.content and not is_single else []
    if wrong:
        raise ConfigError(wrong, "the command line")
    found, problems = {}, []
    for path in args.results:
        try:
            found[path] = load_results(path)
        except (ConfigError, OSError) as error:
            problems.append(
                f"{path}: {'; '.join(error.problems) if isinstance(error, ConfigError) else error.strerror}"
            )
    if problems:
        raise ConfigError(problems, "the results")
    if is_single:
        results = found[args.results[0]]
        if args.content and (wrong := content_problems(has_reference=results.images[0].reference is not None)):
            raise ConfigError(wrong, "the command line")
        more = [content_section(results)] if args.content else []
        write_report(results, output, embed=args.embed, more=more)
    else:
        write_timeline(found, output)
    result(f"{output}\n")
    return 0
