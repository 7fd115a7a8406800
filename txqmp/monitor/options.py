"""The command line of ``qmp-monitor``."""

from __future__ import annotations

import getopt
import importlib.metadata
import sys
from collections.abc import Callable, Sequence
from typing import TypeGuard, TypeVar

from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from txqmp.monitor import config


_T = TypeVar("_T")

EXAMPLES = """
An ENDPOINT is the path of a socket, unix:PATH, tcp:HOST:PORT, tls:HOST:PORT or another of Twisted's
client endpoints; what stands before a '=' is the VM's name. A monitor serves one client at a time:
give each VM one for this daemon, beside the one that manages it. A socket that is made to listen on
has mode 600 if nothing else is said.

Each record is one line of JSON on the standard output; the log goes to the standard error, unless
it was given another place. --events leaves what the daemon says itself: that a VM has come, is gone
or has returned. SIGTERM and Ctrl-C end the daemon, SIGHUP opens the files anew.

Examples:
  twistd -n qmp-monitor --demo
  twistd -n qmp-monitor unix:/run/vm1.sock web=unix:/run/vm2.sock | jq .event
  twistd -n qmp-monitor --glob '/var/run/qemu-server/*.qmp' --events 'BLOCK_*,SHUTDOWN'
  twistd -n qmp-monitor --listen unix:/run/qmp.sock:mode=660 --webhook https://ops.example/qmp
    (QEMU: -chardev socket,id=events,path=/run/qmp.sock,reconnect=1 -mon events,mode=control)
  twistd qmp-monitor --glob '/run/vms/*/qmp.sock' --jsonl /var/log/qmp.jsonl
"""


class Options(UsageOptions):
    """
    The options, checked.

    :ivar config: what they amount to, once they are parsed.
    """

    synopsis = "[options] [NAME=]ENDPOINT..."
    longdesc = (
        "Watches QEMU virtual machines over QMP and tells each event, and when a VM comes, goes "
        "and returns."
    )
    optFlags = [
        ["demo", None, "Start a VM in which something happens every second, and watch it."],
        ["quiet", "q", "Do not print records."],
    ]
    config: config.Config

    def __init__(self) -> None:
        super().__init__()
        self._endpoints: list[config.Endpoint] = []
        self._listens: list[str] = []
        self._globs: list[str] = []
        self._events: list[str] = []
        self._jsonl: list[str] = []
        self._webhooks: list[str] = []

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """
        Parse a command line. Options may follow endpoints, which Twisted's do not.

        :raises UsageError: something is wrong with it.
        :raises SystemExit: … under ``twistd``, which before Twisted 26 says the same, but ends
            with 0.
        """
        try:
            self._parse(list(sys.argv[1:] if options is None else options))
        except UsageError as problem:
            if not _is_twistd(self.parent):
                raise
            sys.stdout.write(f"{self.parent}\n{' '.join(sys.argv[:2])}: {problem}\n")
            raise SystemExit(1) from problem

    def _parse(self, words: list[str]) -> None:
        try:
            found, endpoints = getopt.gnu_getopt(words, self.shortOpt, self.longOpt)
        except getopt.GetoptError as problem:
            raise UsageError(str(problem)) from problem
        sorted_words = []
        for name, value in found:
            takes_value = f"{name[2:]}=" in self.longOpt
            sorted_words.append(f"{name}={value}" if takes_value else name)
        super().parseOptions([*sorted_words, "--", *endpoints])

    def opt_listen(self, endpoint: str) -> None:
        """Where QEMU dials us, such as unix:/run/qmp.sock:mode=660. May be repeated."""
        self._listens.append(_checked(config.listen, endpoint, "--listen"))

    def opt_glob(self, pattern: str) -> None:
        """A pattern of sockets to dial, or a directory of them. May be repeated."""
        self._globs.append(_checked(config.pattern, pattern, "--glob"))

    def opt_events(self, names: str) -> None:
        """Tell only these of QEMU's events: names or globs, with commas. May be repeated."""
        self._events.extend(_checked(config.event_names, names, "--events"))

    def opt_jsonl(self, file: str) -> None:
        """Append the records to a file. May be repeated."""
        self._jsonl.append(_checked(config.file, file, "--jsonl"))

    def opt_webhook(self, url: str) -> None:
        """Post each record to a URL. May be repeated."""
        self._webhooks.append(_checked(config.url, url, "--webhook"))

    def opt_version(self) -> None:
        """Show the version and end."""
        try:
            version = importlib.metadata.version("txqmp")
        except importlib.metadata.PackageNotFoundError:
            version = "(not installed)"
        sys.stdout.write(f"txqmp {version}\n")
        raise SystemExit(0)

    def parseArgs(self, *endpoints: str) -> None:
        for each in endpoints:
            self._endpoints.append(_checked(config.endpoint, each))

    def postOptions(self) -> None:
        printing = _has_stdout(self.parent)
        self.config = config.Config(
            endpoints=tuple(self._endpoints),
            listens=tuple(self._listens),
            globs=tuple(self._globs),
            events=tuple(self._events),
            stdout=printing and not self["quiet"],
            jsonl=tuple(self._jsonl),
            webhooks=tuple(self._webhooks),
            demo=bool(self["demo"]),
        )
        if not (printing or self._jsonl or self._webhooks):
            raise UsageError(
                "there is no standard output: use twistd -n, or give --jsonl or --webhook"
            )
        try:
            config.check(self.config)
        except ValueError as problem:
            raise UsageError(str(problem)) from problem

    def getUsage(self, width: int | None = None) -> str:
        return f"{super().getUsage(width)}{EXAMPLES}"


def _checked(check: Callable[[str], _T], text: str, option: str = "") -> _T:
    try:
        return check(text)
    except ValueError as problem:
        raise UsageError(f"{option}: {problem}" if option else str(problem)) from problem


def _has_stdout(runner: UsageOptions | None) -> bool:
    """
    Whether there is a standard output, and will be: ``twistd`` leaves it unless it is told not to.
    Where it was closed before we began, its descriptor may be anything by now.
    """
    if sys.__stdout__ is None:
        return False
    return not _is_twistd(runner) or bool(runner["nodaemon"] or runner["debug"])


def _is_twistd(runner: UsageOptions | None) -> TypeGuard[UsageOptions]:
    return runner is not None and "nodaemon" in runner
