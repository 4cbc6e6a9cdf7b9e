"""Super-resolution of screen content: windows, menus and above all text, enlarged twice so that it can be read.

    accelerate launch recipes/screen_sr.py                   # minutes on a CPU, offline
    accelerate launch recipes/screen_sr.py --config recipes/configs/screen_serious.yaml --data.train DIR --data.val DIR
    accelerate launch recipes/screen_sr.py --help            # every option

Without folders it paints pages of real fonts (`_lib/pages.py`; more of them with `--data.fonts`) and trains and
validates on different ones. Ends with the table and picture of recipes/sr.py, and with how many characters a program
that reads (tesseract, or the package rapidocr-onnxruntime) gets wrong in what each system made: legibility, which
no critic is trained on. Of screenshots whose text nobody knows, the truth is what the reader reads in the ground truth.

Below `output`: what recipes/sr.py leaves, and pages/ with the painted pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _lib.checks import find_images
from _lib.data import whole_pair
from _lib.enlarging import ENLARGING
from _lib.pages import font_files, lines_of, paint
from _lib.task import Images, RestorerOptions, Task
from _lib.training import run
from _lib.validation import Enlarge
from accelerate import Accelerator
from torch import Tensor

from perceptloss.compare.legibility import Line, Reader, misread, readers
from perceptloss.compare.pixels import stored
from perceptloss.output.tables import markdown
from perceptloss.runs import config as options
from perceptloss.runs.config import option
from perceptloss.runs.images import Pair
from perceptloss.runs.launch import alone_in_folder, on_main, run_as_script
from perceptloss.runs.options import Data, Log, Loss, Model, Train, Val

NETWORK = {"num_feat": 48, "num_conv": 12, "upscale": 2}
CRITICS = {
    "charbonnier": {"share": 0.4, "options": {"criterion": "l2"}},  # what is most wrong weighs most: letters, not paper
    "gmsd": {"share": 0.2},  # edges of letters, evenly well
    "lpips-squeeze": {"share": 0.2},  # looks
}
JUDGES = ("mini-fr", "haarpsi", "ssim-full", "mdsi")
GUESTS = ("lpips-alex", "dfss")
_READ = 8  # lines of a picture that are read, the smallest first


@dataclass(frozen=True)
class ScreenData(Data):
    """Screenshots, and fonts of which pages are painted."""

    fonts: tuple[str, ...] = option((), "folders of fonts to paint pages with; none: the one that Pillow carries")
    pages: int = option(40, "painted pages to train on", at_least=1)
    flips: bool = option(False, "mirror and turn the patches at random, which text never is")


@dataclass(frozen=True)
class Config(RestorerOptions):
    """Every option; the defaults are the demonstration."""

    output: str = option("runs/screen_sr", "folder of the run")
    data: ScreenData = field(default_factory=lambda: ScreenData(patch=64))
    model: Model = field(default_factory=lambda: Model(options=dict(NETWORK), scale=2, weights="screen-start"))
    loss: Loss = field(
        default_factory=lambda: Loss(critics=CRITICS, shift=8, budget={"psnr": -0.25}, budget_room=2.0, domain="screen")
    )
    train: Train = field(default_factory=lambda: Train(steps=700, lr=5e-4, warmup=20, ema=0.99))
    val: Val = field(default_factory=lambda: Val(every=0, judges=JUDGES, guests=GUESTS, best="mini-fr"))
    log: Log = field(default_factory=lambda: Log(every=25))


# --- images -------------------------------------------------------------------------------------


def find(config: Config, least: int, accelerator: Accelerator) -> Images:
    """Screenshots of the folders, or painted pages, every file checked."""
    data, folder = config.data, Path(config.output) / "pages"
    fonts = font_files(data.fonts)
    if not data.train:
        on_main(accelerator, partial(paint, folder / "train", data.pages, 0, fonts))
        data = replace(data, train=(str(folder / "train"),))
    if not data.val:
        on_main(accelerator, partial(paint, folder / "val", 4, 1_000_000, fonts))
        data = replace(data, val=(str(folder / "val"),))
    return find_images(data, config.model.scale, ((), ()), least, accelerator)


# --- legibility ---------------------------------------------------------------------------------


@torch.no_grad()
def told(config: Config, folder: Path, systems: Mapping[str, Enlarge], pairs: Sequence[Pair]) -> list[str]:
    """The share of characters that each reader of this machine gets wrong."""
    here = readers()
    if not here:
        return [
            "Legibility was not measured: neither the command tesseract (package tesseract-ocr) nor "
            "rapidocr-onnxruntime (pip install perceptloss[ocr]) is here."
        ]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    found: dict[str, dict[str, list[float]]] = {reader.name: {} for reader in here}
    for pair in pairs:
        lq, gt = whole_pair(pair, config.model.scale)
        pictures = {name: stored(enlarge(lq.to(device)).cpu()) for name, enlarge in systems.items()}
        for reader in here:
            known = _known(pair, gt, reader)
            for name, picture in {**pictures, "ground truth": gt}.items() if known else ():
                found[reader.name].setdefault(name, []).append(misread(reader, picture, known))
    rows = [
        [name, *(_percent(found[reader.name].get(name, [])) for reader in here)] for name in (*systems, "ground truth")
    ]
    head = ["misread characters", *(reader.name for reader in here)]
    return [f"Legibility: of the {_READ} smallest lines of each picture, line by line.\n\n{markdown(head, rows)}"]


def _known(pair: Pair, gt: Tensor, reader: Reader) -> list[Line]:
    """The smallest lines of a picture: as it was painted, or as they are read in the ground truth."""
    lines = lines_of(pair.gt) or reader.lines(gt)
    inside = [line for line in lines if line.box[2] <= gt.shape[1] and line.box[3] <= gt.shape[2]]
    return sorted(inside, key=lambda line: line.box[2] - line.box[0])[:_READ]


def _percent(shares: Sequence[float]) -> str:
    return f"{100 * sum(shares) / len(shares):.1f} %" if shares else "no text found"


# --- the run ------------------------------------------------------------------------------------


TASK: Task[Any] = Task(
    recipe="screen_sr",
    find=find,
    **ENLARGING,
    told=told,
)


@alone_in_folder
def main(argv: Sequence[str]) -> None:
    """The whole run."""
    run(options.load(Config, argv), TASK)


if __name__ == "__main__":
    run_as_script(main, Config, __doc__)
