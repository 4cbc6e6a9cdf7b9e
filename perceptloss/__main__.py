"""`python -m perceptloss` is the command `perceptloss`."""

from __future__ import annotations

import sys

from perceptloss.cli.main import main

sys.exit(main())
