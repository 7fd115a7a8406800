"""The command line: ``python tests/chaos [--seed N] [--minutes 2] [--vms 200] [--rate 2000]``."""

from __future__ import annotations

import sys
from pathlib import Path


# Python puts this directory on the path; its modules are found as those of a package instead.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from chaos.command import main  # noqa: E402


sys.exit(main())
