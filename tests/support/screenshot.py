"""Take the picture of the status page that the documentation has.

``python tests/support/screenshot.py docs/images/monitor-page.png`` needs a Chromium.
"""

from __future__ import annotations

import sys
from pathlib import Path


if __name__ == "__main__":  # then its own directory is on the path, and this is not
    sys.path[:1] = [str(Path(__file__).resolve().parents[1])]

from support.browser import Browser
from support.webface import WebFace


def main(path: Path) -> None:
    with WebFace("--story") as face, Browser() as browser:
        page = browser.open(face.url, width=1280, height=1060)
        page.wait_for("document.getElementById('event-rows').rows.length >= 100")
        page.wait_for("document.getElementById('connection').dataset.state === 'connected'")
        page.screenshot(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
