"""What the documents show runs: the examples of docstrings, and the code and terms of README and docs."""

from __future__ import annotations

import ast
import doctest
import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path

import pytest
import torch
import yaml

import perceptloss
from perceptloss import Card, Critic, CriticLoss, create_critic
from perceptloss.errors import MissingWeights
from perceptloss.loss.parsing import parse_terms

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.+?)^```", re.M | re.S)
FOREIGN = ("basicsr", "lightning", "traiNNer", "mmengine", "models", "torchvision", "timm", "skimage", "accelerate")


def given() -> dict[str, object]:
    """What every example may use without saying where it comes from."""
    torch.manual_seed(0)
    hr = torch.rand(1, 3, 64, 64)
    sr = (hr + 0.05 * torch.randn_like(hr)).clamp(0, 1)
    names = {"torch": torch, "Card": Card, "Critic": Critic, "CriticLoss": CriticLoss, "create_critic": create_critic}
    return {**names, "critic": create_critic("gmsd"), "x": sr, "y": hr, "sr": sr, "hr": hr}


def docstring_examples() -> list[doctest.DocTest]:
    finder, found = doctest.DocTestFinder(exclude_empty=True), []
    for part in pkgutil.walk_packages(perceptloss.__path__, "perceptloss."):
        source = importlib.util.find_spec(part.name).origin
        if ">>>" in Path(source).read_text(encoding="utf-8"):
            found += [test for test in finder.find(importlib.import_module(part.name)) if test.examples]
    return found


@pytest.mark.parametrize("example", docstring_examples(), ids=lambda test: test.name)
def test_docstring_examples_run(example):
    example.globs.update({name: value for name, value in given().items() if name not in example.globs})
    failures: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    runner.run(example, out=failures.append)
    if any("MissingWeights" in text for text in failures):
        pytest.skip("weights that are not on this machine")
    assert not failures, "".join(failures)


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (f"{page.name}-{number}", code)
        for page in PAGES
        for number, (name, code) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
        if name == language
    ]


def modules_of(code: str) -> set[str]:
    names = [n for n in ast.walk(ast.parse(code)) if isinstance(n, (ast.Import, ast.ImportFrom))]
    found = {a.name for n in names if isinstance(n, ast.Import) for a in n.names}
    return {name.partition(".")[0] for name in found | {n.module or "" for n in names if isinstance(n, ast.ImportFrom)}}


@pytest.mark.parametrize(("name", "code"), blocks("python"), ids=[name for name, _ in blocks("python")])
def test_code_in_documents_runs(name, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parsed = compile(code, name, "exec")
    absent = [module for module in modules_of(code) if module in FOREIGN and importlib.util.find_spec(module) is None]
    if absent:
        pytest.skip(f"needs {', '.join(absent)}; it parses")
    try:
        exec(parsed, given())
    except MissingWeights:
        pytest.skip("weights that are not on this machine")
    except ModuleNotFoundError as error:  # a fork's package under the name of one that is here
        if (error.name or "").partition(".")[0] not in FOREIGN:
            raise
        pytest.skip(f"needs {error.name}; it parses")


def test_terms_in_yaml_examples_are_valid():
    found = 0
    for _, block in blocks("yaml"):
        tree = yaml.safe_load(block)
        for section in (tree, *(value for value in tree.values() if isinstance(value, dict))):
            if "critics" in section:
                found += len(parse_terms(section["critics"]))
    assert found >= 3
