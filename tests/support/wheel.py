"""Check what a wheel of this project holds: ``python tests/support/wheel.py WHEEL...``.

The twistd plugin must be in it. ``twisted/__init__.py`` and ``twisted/plugins/__init__.py`` must
not: installing the wheel would overwrite Twisted's own, and uninstalling it would delete them.
"""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterable


PLUGIN = "twisted/plugins/txqmp_plugins.py"
STATIC = ("page.css", "page.html", "page.js")
REQUIRED = (
    "txqmp/__init__.py",
    "txqmp/py.typed",
    *(f"txqmp/monitor/web/static/{name}" for name in STATIC),
    PLUGIN,
)
FORBIDDEN = ("twisted/__init__.py", "twisted/plugins/__init__.py")


def problems(names: Iterable[str]) -> list[str]:
    """Return what is wrong with a distribution that installs files of these names."""
    found = set(names)
    wrong = [f"{name} is missing" for name in REQUIRED if name not in found]
    wrong += [f"{name} would overwrite Twisted's own" for name in FORBIDDEN if name in found]
    for name in sorted(found):
        top = name.split("/", 1)[0]
        if name.endswith("dropin.cache"):
            wrong.append(f"{name} is Twisted's cache of somebody's plugins")
        elif top == "twisted" and name not in (PLUGIN, *FORBIDDEN) and "__pycache__" not in name:
            wrong.append(f"{name} does not belong in Twisted's package")
        elif top not in ("txqmp", "twisted") and not top.endswith(".dist-info"):
            wrong.append(f"{name} is outside the package")
    return wrong


def main(wheels: list[str]) -> int:
    if not wheels:
        sys.stderr.write("no wheel was given\n")
        return 2
    status = 0
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            wrong = problems(archive.namelist())
        for problem in wrong:
            sys.stderr.write(f"{wheel}: {problem}\n")
        status = max(status, int(bool(wrong)))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
