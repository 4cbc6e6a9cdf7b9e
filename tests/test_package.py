"""The package as a whole: what importing it costs, and what it says of itself."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import perceptloss

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
