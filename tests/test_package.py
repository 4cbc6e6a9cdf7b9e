"""The package as a whole: what importing it costs, and what it says of itself."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import perceptloss

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

HEAVY = (
    *("torchvision", "scipy", "PIL", "yaml", "piq", "accelerate", "basicsr", "timm", "kornia", "matplotlib"),
    "torch._dynamo",
)


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return done.stdout.strip()


def test_importing_the_package_and_building_a_loss_loads_nothing_heavier_than_torch():
    code = (
        "import sys, torch; before = set(sys.modules)\n"
        "import perceptloss\n"
        "perceptloss.list_critics(); perceptloss.CriticLoss({'ssim': 1.0})\n"
        f"heavy = {HEAVY!r}\n"
        "print(sorted({m for m in set(sys.modules) - before if m.startswith(heavy)}))"
    )
    assert run_python(code) == "[]"


def test_importing_the_bare_package_does_not_even_load_its_own_modules():
    code = "import sys, perceptloss; print(sorted(m for m in sys.modules if m.startswith('perceptloss')))"
    assert run_python(code) == "['perceptloss']"


def test_version_is_the_installed_one():
    assert perceptloss.__version__ == version("perceptloss")


def test_public_names_exist_and_others_do_not():
    for name in perceptloss.__all__:
        assert getattr(perceptloss, name) is not None
    assert not hasattr(perceptloss, "no_such_name")


def test_recipes_and_weights_travel_in_the_wheel():
    carried = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert carried == {"recipes": "perceptloss/_recipes", "weights": "perceptloss/_weights"}


def test_every_python_that_is_promised_is_tried():
    named = [line.rpartition(" ")[2] for line in PROJECT["project"]["classifiers"] if "Python :: 3." in line]
    assert named == ["3.10", "3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["project"]["requires-python"] == f">={named[0]}"
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert f"for version in {' '.join(named)}; do" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "python: [" + ", ".join(f'"{name}"' for name in named) + "]" in workflow
    oldest = next(line for line in PROJECT["project"]["dependencies"] if line.startswith("torch"))
    assert f'"torch=={oldest.partition(">=")[2]}.*"' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_what_only_basicsr_needs_is_not_asked_for_where_it_does_not_install():
    extras = PROJECT["project"]["optional-dependencies"]
    assert all("python_version < '3.13'" in line for line in extras["basicsr"])
