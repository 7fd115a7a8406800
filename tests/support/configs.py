"""Configuration files for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from txqmp.monitor.config import Config, ConfigError, load


SINK = '[[sink]]\ntype = "stdout"\n'
SOURCE = '[[source]]\ndial = "tcp:h:1"\n'

#: What no message may show.
HUSH = "hush-PGPcAm6Z"


class ConfigFile:
    """A configuration file, and what is beside it.

    :param directory: where it is.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "qmp-monitor.toml"
        self.environ: dict[str, str] = {}

    def write(self, text: str | bytes) -> str:
        """Write it; return its path."""
        self.path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(self.path)

    def secret(self, name: str, content: str | bytes = HUSH, mode: int = 0o600) -> Path:
        """Make a file with a secret beside it."""
        path = self.directory / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(mode)
        return path

    def load(self, text: str | bytes, environ: Mapping[str, str] | None = None) -> Config:
        """Write it, and load it."""
        return load(self.write(text), environ=self.environ if environ is None else environ)

    def problems(self, text: str | bytes) -> list[str]:
        """Write a file that is wrong; return what is said of it."""
        with pytest.raises(ConfigError) as raised:
            self.load(text)
        error = raised.value
        assert error.problems
        assert error.where == str(self.path)
        assert str(error).splitlines() == [f"{self.path}: {each}" for each in error.problems]
        assert HUSH not in f"{error!s} {error!r} {error.__cause__!r}"
        return list(error.problems)

    def problem(self, text: str | bytes) -> str:
        """Write a file with one thing wrong; return what is said of it."""
        (problem,) = self.problems(text)
        return problem

    def sink_problem(self, text: str) -> str:
        """What is said of the only sink, without where it is."""
        return self.problem(f"{SOURCE}[[sink]]\n{text}").removeprefix("[[sink]] number 1: ")
