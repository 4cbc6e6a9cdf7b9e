"""Pages that stand alone: one file without network, whose only script is the one that came with the package."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from perceptloss.errors import PerceptlossError
from perceptloss.output.names import visible

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["page"]

_ASSETS: Final = Path(__file__).parent / "assets"
_UNSAFE: Final = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def page(
    template: str, context: Mapping[str, Any], *, styles: Sequence[str], scripts: Sequence[str], data: object
) -> str:
    """HTML of a template, with styles, data and scripts inside.

    Nothing but our scripts runs, whatever names are in the data: text is escaped, data is no script, and the page's
    policy admits scripts by their hash.

    Args:
        template: Name of the file.
        context: What it shows.
        styles: Names of files.
        scripts: Names of files, run as one.
        data: What scripts read, as plain JSON types.

    Raises:
        PerceptlossError: if jinja2 is not installed.
    """
    script = "".join(_asset(name) for name in scripts)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    inside = {
        "policy": f"{policy}; base-uri 'none'; form-action 'none'",
        "style": "".join(_asset(name) for name in styles),
        "script": script,
        "data": text.translate(_UNSAFE),
    }
    html = _environment().get_template(template).render(**context, **inside)
    return html.encode("utf-8", "backslashreplace").decode("utf-8")


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise PerceptlossError("reports need jinja2: pip install 'perceptloss[compare]'") from error
    made = Environment(
        loader=FileSystemLoader(_ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["visible"] = visible
    made.finalize = lambda value: visible(value, "\n") if type(value) is str else value
    return made
