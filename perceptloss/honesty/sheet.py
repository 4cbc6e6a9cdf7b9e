"""An examination for people: a sheet that fits a terminal, and a row of a table."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

from perceptloss.honesty.examination import STARTS, Examination
from perceptloss.honesty.findings import FINDINGS, Finding, findings_of
from perceptloss.output.tables import counted, markdown, text

__all__ = ["HEAD", "row", "sheet", "table"]

HEAD: Final = (
    *("critic", "kind", "truth ±2", "robustness", "enlarged ±2", "PSNR, dB", "pattern", "phases, dB", "flat", "dead"),
    *("order", "findings"),
)
_STARTS: Final = {"truth": "from photographs", "restored": "from x4 enlargements"}


def sheet(e: Examination, width: int = 80) -> str:
    """Figures and findings of one critic, in lines of at most `width` signs, as far as names allow."""
    found = findings_of(e)
    photos = ", ".join(e.photos)
    unit = f"gains in % of {e.unit:.4g}, what lies between photographs and wrecks"
    head = _wrapped(f"{e.critic} ({e.kind}) on {photos}, {e.side}x{e.side}, {e.effort}; {unit}", width)
    return "\n".join([head, _attacks(e), _figures(e, width), _verdict(found, width)])


def _attacks(e: Examination) -> str:
    strengths = list(e.attacks["truth"].best)
    rows = [["attack", *(f"±{s}/255" for s in strengths), "robustness"]]
    for start in STARTS:
        attack = e.attacks[start]
        rows.append([_STARTS[start], *([""] * len(strengths)), f"{attack.robustness:.2f}"])
        rows += [[f"  {name}", *map(_percent, gains.values()), ""] for name, gains in attack.gain.items()]
        if attack.psnr:
            rows.append(["  PSNR of the strongest, dB", *(f"{db:+.2f}" for db in attack.psnr.values()), ""])
    return text(rows, "lr")


def _figures(e: Examination, width: int) -> str:
    pattern, which = e.strongest_pattern()
    peak, where = e.strongest_peak()
    phases = [gain for start in STARTS for name, gain in e.grain[start].items() if name != "all"]
    rows = {
        "fixed pattern ±2/255": f"{_percent(pattern)} beyond grain at most" + f": {which}" * bool(which),
        "grain ±2/255": f"{_percent(e.grain['truth']['all'])} on photographs, {_percent(e.grain['restored']['all'])} "
        f"on enlargements; on one pixel phase of four {_percent(min(phases))} to {_percent(max(phases))}",
        "gradient": f"highest peak {peak:+.1f} dB at {where}; phases apart by "
        + ", ".join(f"{gap:.1f} dB of {period} pixels" for period, gap in e.phases.items())
        if where
        else "none",
        "flat patches": f"gradient {e.flat.push:.2g} times that on pictures, {e.flat.pattern:.0%} of it a pattern",
        "no gradient": _shares({name: zone.zero for name, zone in e.zones.items()}),
        "order of levels": _shares(e.ladders),
        "order at half size": _shares(e.scale) or "not asked: too small for it",
        "squares cost": ", ".join(f"by {factor}: {_percent(gain)}" for factor, gain in e.pixelation.items()),
    }
    label = max(map(len, rows)) + 2
    return "".join(_wrapped(name.ljust(label) + fact, width, later=" " * label) + "\n" for name, fact in rows.items())


def _verdict(found: Sequence[Finding], width: int) -> str:
    passed = [name for name in FINDINGS if name not in {finding.name for finding in found}]
    lines = [f"{counted(len(found), 'finding')}"]
    for finding in found:
        lines.append(_wrapped(f"{finding.name}: {finding.sentence}", width, "  "))
        lines.append(_wrapped(f"helps: {finding.guard}", width, "    "))
    if passed:
        lines.append(_wrapped(f"nothing of: {', '.join(passed)}", width, "  "))
    return "\n".join(lines) + "\n"


def _wrapped(sentence: str, width: int, indent: str = "", later: str | None = None) -> str:
    return textwrap.fill(
        sentence,
        max(width, 40),
        initial_indent=indent,
        subsequent_indent=f"{indent}  " if later is None else later,
        break_on_hyphens=False,
        replace_whitespace=False,
    )


def _percent(share: float) -> str:
    share = round(share, 3) + 0.0  # which is no negative zero
    return f"{share:+.0%}" if abs(share) >= 0.1 else f"{share:+.1%}"


def _shares(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in shares.items())


def row(e: Examination) -> list[str]:
    """A row below `HEAD`."""
    truth, restored = e.attacks["truth"], e.attacks["restored"]
    pattern, _ = e.strongest_pattern()
    names = dict.fromkeys(finding.name for finding in findings_of(e))
    return [
        f"`{e.critic}`",
        e.kind,
        _percent(truth.best["2"]),
        f"{truth.robustness:.2f} / {restored.robustness:.2f}",
        _percent(restored.best["2"]),
        f"{restored.psnr['2']:+.2f}",
        _percent(pattern),
        f"{max(e.phases.values(), default=0.0):.1f}",
        f"{e.flat.push:.1f}",
        f"{max(zone.zero for zone in e.zones.values()):.0%}",
        f"{min(e.ladders.values()):.0%}",
        ", ".join(names) or "none",
    ]


def table(rows: Sequence[Sequence[str]], *, is_markdown: bool) -> str:
    """Rows below `HEAD`, as Markdown or as text."""
    align = "llrrrrrrrrrl"
    return markdown(HEAD, rows, align) if is_markdown else text([HEAD, *rows], align)
