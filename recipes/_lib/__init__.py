"""Parts the recipes share; not part of the installed package.

A recipe is run as a script, so its own folder is the first place Python imports from and these
modules are `_lib.*`. In a checkout that is not installed, the folder above holds `perceptloss`.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("perceptloss") is None:
    sys.path.append(str(Path(__file__).resolve().parents[2]))
