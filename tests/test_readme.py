"""What README and docs claim about critics and files is what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import piq
import pytest
import torch

from perceptloss import create_critic, list_critics
from perceptloss.cli.main import main

ROOT = Path(__file__).parent.parent
CHOOSING = (ROOT / "docs" / "choosing.md").read_text(encoding="utf-8")


def rows(header: str) -> list[list[str]]:
    lines = CHOOSING[CHOOSING.index(header) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_critic_table_is_what_the_command_prints(capsys):
    assert main(["list", "--format", "md"]) == 0
    table = capsys.readouterr().out
    written = (ROOT / "docs" / "all-critics.md").read_text(encoding="utf-8")
    assert table in written, "perceptloss list --format md has changed: put its output into docs/all-critics.md"


def test_every_critic_is_named():
    named = set(re.findall(r"`([\w-]+)`", CHOOSING))
    assert {card.name for card in list_critics()} - named == set()


PIQ = {
    "ssim": piq.ssim,
    "ssim-full": lambda x, y: piq.ssim(x, y, downsample=False),
    "ms-ssim": piq.multi_scale_ssim,
    "vif": piq.vif_p,
    "fsim": lambda x, y: piq.fsim(x, y, chromatic=False),
    "fsimc": piq.fsim,
    "vsi": piq.vsi,
    "gmsd": piq.gmsd,
    "ms-gmsd": piq.multi_scale_gmsd,
    "ms-gmsdc": lambda x, y: piq.multi_scale_gmsd(x, y, chromatic=True),
    "mdsi": piq.mdsi,
    "haarpsi": piq.haarpsi,
    "dss": piq.dss,
    "sr-sim": piq.srsim,
    "sr-simc": lambda x, y: piq.srsim(x, y, chromatic=True),
    "iw-ssim": piq.information_weighted_ssim,
    "psnr": piq.psnr,
    "tv": lambda x, y: piq.total_variation(x),
    "tv-l1": lambda x, y: piq.total_variation(x, norm_type="l1"),
    "tv-l2-squared": lambda x, y: piq.total_variation(x, norm_type="l2_squared"),
}
PIQ_ROWS = {name: row[4] for row in rows("| critic | in piq |") for name in re.findall(r"`(.+?)`", row[0])}


def patches() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    photo = torch.rand(1, 3, 168, 168, generator=torch.Generator().manual_seed(0))
    black, grey = torch.zeros_like(photo), torch.full_like(photo, 0.5)
    return {"equal": (photo, photo), "black": (black, black), "flat": (grey, grey), "black x": (black, photo)}


def is_finite(function, x: torch.Tensor, y: torch.Tensor) -> bool:
    leaf = x.clone().requires_grad_()
    try:
        (gradient,) = torch.autograd.grad(function(leaf, y).sum(), leaf)
    except torch.linalg.LinAlgError:  # piq's IW-SSIM inverts a covariance of zeros
        return False
    return bool(gradient.isfinite().all())


@pytest.mark.parametrize("name", PIQ_ROWS)
def test_piq_table_tells_where_gradients_are_nan(name):
    claim = PIQ_ROWS[name]
    assert all(is_finite(create_critic(name), *pair) for pair in patches().values())
    if claim == "-":
        assert name not in PIQ
        return
    bad = {kind for kind, pair in patches().items() if not is_finite(PIQ[name], *pair)}
    if claim == "yes":
        assert bad == set()
    elif claim == "NaN for two black patches":
        assert bad == {"black"}
    elif claim == "fails on a reference without content":
        assert bad == {"black", "flat"}
    else:
        assert "black" in bad
        assert ("equal" in bad) == ("x = y" in claim)


def test_every_formula_critic_is_in_the_piq_table():
    of_images = (card.name for card in list_critics(weight_free=True) if card.channels == 3)
    assert sorted(PIQ_ROWS) == sorted(of_images)


PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))
HOME = "https://github.com/perceptloss/perceptloss/blob/main/"
SITE = "https://perceptloss.readthedocs.io/page/"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_pages_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/.-])(?:recipes|weights|benchmarks|docs)/[\w/.-]*\w", text))
    named |= set(re.findall(r"(?<![\w/.-])(?:tests/test_\w+|perceptloss/[\w/]+)\.py", text))
    links = re.findall(r"\]\(([^)#]+)\)", text)
    named |= {link.removeprefix(HOME) for link in links if link.startswith(HOME)}
    sites = {link.removeprefix(SITE).strip("/") for link in links if link.startswith(SITE)}
    assert {name for name in named if not (ROOT / name).exists()} == set()
    assert {name for name in sites if name and not (ROOT / "docs" / f"{name}.md").exists()} == set()


def test_links_of_the_readme_are_absolute():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("https://")] == []


def test_the_number_of_checked_critics_is_right():
    cards = list_critics()
    checked = sum(card.fidelity == "official-parity" for card in cards)
    for page in (ROOT / "README.md", ROOT / "docs" / "index.md"):
        assert f"{checked} of the {len(cards)} critics are checked" in page.read_text(encoding="utf-8")


def test_the_number_of_critics_is_right():
    assert f"{len(list_critics())} critics" in (ROOT / "README.md").read_text(encoding="utf-8")
