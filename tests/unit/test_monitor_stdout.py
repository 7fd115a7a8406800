"""The standard output."""

from __future__ import annotations

import os

from txqmp.monitor.sinks import stdout
from txqmp.monitor.sinks.stdout import Descriptor


def test_the_descriptor_is_not_ours() -> None:
    reader, writer = os.pipe()
    target = Descriptor(writer)
    target.write([b"one"])
    target.reopen()
    target.write([b"two"])
    target.close()
    os.write(writer, b"three\n")
    assert os.read(reader, 100) == b"one\ntwo\nthree\n"
    os.close(reader)
    os.close(writer)


def test_it_is_the_real_one() -> None:
    """Twisted replaces ``sys.stdout`` by the log."""
    assert stdout.STANDARD_OUTPUT == 1
