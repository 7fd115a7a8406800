"""The command line of ``qmp-monitor``."""

from __future__ import annotations

import getopt
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeGuard, TypeVar
from urllib.parse import urlsplit

from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from txqmp.monitor.config import (
    DEMO_NAME,
    HTTP,
    Config,
    ConfigError,
    Dial,
    Glob,
    Listen,
    Sink,
    SinkSettings,
    load,
    places,
)
from txqmp.monitor.config.filters import event_names
from txqmp.monitor.config.model import name_for
from txqmp.monitor.envelope import Envelope
from txqmp.monitor.sinks.settings import JSONLSettings, StdoutSettings, WebhookSettings


_T = TypeVar("_T")

_WITH_CONFIG = ("--config", "--check-config")

EXAMPLES = """
An ENDPOINT is the path of a socket, unix:PATH, tcp:HOST:PORT, tls:HOST:PORT or another of Twisted's
client endpoints; what stands before a '=' is the VM's name. A monitor serves one client at a time:
give each VM one for this daemon, beside the one that manages it. A socket that is made to listen on
has mode 600 if nothing else is said.

Each event is a CloudEvent 1.0, one line of JSON on the standard output; the log goes to the
standard error, unless it was given another place. --events leaves what the daemon says itself: that
a VM has come, is gone or has returned. With --state-dir, or $STATE_DIRECTORY, events are kept until
they are delivered, across ends of the daemon. SIGTERM and Ctrl-C end it; SIGHUP has it load the
file of --config again, and open the files anew that it writes to.

Examples ("qmp-monitor" alone does the same in the foreground):
  twistd -n qmp-monitor --demo | jq .type
  twistd -n qmp-monitor unix:/run/vm1.sock web=unix:/run/vm2.sock | jq .data
  twistd -n qmp-monitor --glob '/var/run/qemu-server/*.qmp' --events 'BLOCK_*,SHUTDOWN'
  twistd -n qmp-monitor --listen unix:/run/qmp.sock:mode=660 --webhook https://ops.example/qmp
    (QEMU: -chardev socket,id=events,path=/run/qmp.sock,reconnect=1 -mon events,mode=control)
  twistd qmp-monitor --glob '/run/vms/*/qmp.sock' --jsonl /var/log/qmp.jsonl
  twistd -n qmp-monitor --config /etc/qmp-monitor.toml
"""


class Options(UsageOptions):
    """
    The options, checked.

    :ivar config: what they amount to, once they are parsed.
    :ivar config_file: the file that it is from, as an absolute path; ``None`` for the command line.
    """

    synopsis = "[options] [NAME=]ENDPOINT..."
    longdesc = (
        "Watches QEMU virtual machines over QMP and tells each event, and when a VM comes, goes "
        "and returns."
    )
    optFlags = [
        ["demo", None, "Start a VM in which something happens every second, and watch it."],
        ["quiet", "q", "Do not print events."],
        ["check-config", None, "Check the file of --config, and end with 0 or 1."],
    ]
    config: Config

    def __init__(self) -> None:
        super().__init__()
        self.config_file: str | None = None
        self._words: list[str] = []
        self._dials: list[Dial] = []
        self._listens: list[Listen] = []
        self._globs: list[Glob] = []
        self._events: list[str] = []
        self._sinks: list[SinkSettings] = []
        self._http: HTTP | None = None
        self._chosen: dict[str, Any] = {}

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
        self._words = [name for name, _ in found] + endpoints
        sorted_words = []
        for name, value in found:
            takes_value = f"{name[2:]}=" in self.longOpt
            sorted_words.append(f"{name}={value}" if takes_value else name)
        super().parseOptions([*sorted_words, "--", *endpoints])

    def opt_config(self, file: str) -> None:
        """Do what a TOML file says. Nothing else is given then, but --check-config."""
        if self.config_file is not None:
            raise UsageError("--config is given twice")
        if not file:
            raise UsageError("--config: the name of a file is empty")
        self.config_file = os.path.abspath(file)

    def opt_listen(self, endpoint: str) -> None:
        """Where QEMU dials us, such as unix:/run/qmp.sock:mode=660. May be repeated."""
        self._listens.append(Listen(where=_checked(places.listen, endpoint, "--listen")))

    def opt_glob(self, pattern: str) -> None:
        """A pattern of sockets to dial, or a directory of them. May be repeated."""
        self._globs.append(Glob(patterns=(_checked(places.pattern, pattern, "--glob"),)))

    def opt_events(self, names: str) -> None:
        """Take in only these of QEMU's events: names or globs, with commas. May be repeated."""
        self._events.extend(_checked(event_names, names, "--events"))

    def opt_jsonl(self, file: str) -> None:
        """Append the events to a file. May be repeated."""
        self._sinks.append(JSONLSettings(path=_checked(places.file, file, "--jsonl")))

    def opt_webhook(self, url: str) -> None:
        """Post each event to a URL. May be repeated."""
        _checked(places.url, url, "--webhook")
        plain = urlsplit(url).scheme == "http"
        self._sinks.append(WebhookSettings(url=url, allow_plaintext=plain))

    def opt_http(self, endpoint: str) -> None:
        """Where to serve the status page and the metrics, such as tcp:9177."""
        self._http = HTTP(listen=_checked(places.web, endpoint, "--http"))

    def opt_state_dir(self, directory: str) -> None:
        """Where to keep what is to outlive the daemon: events that are not delivered yet."""
        self._chosen["state_dir"] = _checked(places.state_directory, directory, "--state-dir")

    def opt_node(self, name: str) -> None:
        """What this host is called in events."""
        self._chosen["node"] = _checked(lambda text: Envelope(node=text).node, name, "--node")

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
            self._dials.append(_checked(places.endpoint, each))

    def postOptions(self) -> None:
        if self.config_file is not None:
            self._read_config(self.config_file)
            return
        if self["check-config"]:
            raise UsageError("--check-config goes with --config")
        printing = _has_stdout(self.parent)
        if not (printing or self._sinks or self._http):
            raise UsageError(
                "there is no standard output: use twistd -n, or give --jsonl or --webhook"
            )
        if printing and not self["quiet"]:
            self._sinks.insert(0, StdoutSettings())
        self.config = Config(
            **self._chosen,
            sources=(*self._listens, *self._dials, *self._globs),
            events=tuple(self._events),
            sinks=tuple(_named(self._sinks)),
            http=self._http,
            demo=bool(self["demo"]),
        )
        _check(self.config)

    def _read_config(self, path: str) -> None:
        """
        :raises UsageError: something else is given.
        :raises SystemExit: the file cannot be used; or it was only to be checked.
        """
        others = [word for word in self._words if word not in _WITH_CONFIG]
        if others:
            raise UsageError(f"--config says all there is to do: {others[0]} does not go with it")
        check = bool(self["check-config"])
        try:
            self.config = load(path, inherited=not check)
            if not check and self.config.stdout and not _has_stdout(self.parent):
                raise ConfigError(path, ["there is no standard output to print to: use twistd -n"])
        except ConfigError as problem:
            sys.stderr.write(f"{problem}\n")
            raise SystemExit(1) from problem
        if check:
            sys.stdout.write(f"{path}: all of it is in order\n")
            raise SystemExit(0)

    def getUsage(self, width: int | None = None) -> str:
        return f"{super().getUsage(width)}{EXAMPLES}"


def _checked(check: Callable[[str], _T], text: str, option: str = "") -> _T:
    try:
        return check(text)
    except ValueError as problem:
        raise UsageError(f"{option}: {problem}" if option else str(problem)) from problem


def _named(settings: Iterable[SinkSettings]) -> list[Sink]:
    """Sinks, each with a name of its own: of two URLs the difference may not be shown."""
    sinks: dict[str, Sink] = {}
    for each in settings:
        first = name = name_for(each)
        number = 1
        while name in sinks:
            number += 1
            name = f"{first} ({number})"
        sinks[name] = Sink(settings=each, name=name)
    return list(sinks.values())


def _check(config: Config) -> None:
    """
    Whether all of it goes together.

    :raises UsageError: it does not.
    """
    if not (config.sources or config.demo):
        raise UsageError("nothing to watch: give an ENDPOINT, --listen, --glob or --demo")
    if not (config.sinks or config.http):
        raise UsageError("nobody would be told: --quiet needs --jsonl or --webhook")
    names = [each.name for each in config.sources if isinstance(each, Dial)]
    if config.demo:
        names.append(DEMO_NAME)
    name = _twice(names)
    if name is not None:
        raise UsageError(f"two VMs would be called {name!r}: name them, as in NAME=ENDPOINT")
    source = _twice(config.sources, places.place_of)
    if source is not None:
        where = source.patterns[0] if isinstance(source, Glob) else source.where
        raise UsageError(f"{where} is given twice")
    sink = _twice(config.sinks, lambda sink: sink.settings)
    if sink is not None:
        raise UsageError(f"{name_for(sink.settings).partition(' ')[2]} is given twice")


def _twice(things: Iterable[_T], key: Callable[[_T], object] = lambda it: it) -> _T | None:
    """The first thing that is the same as one before it."""
    seen = set()
    for each in things:
        if key(each) in seen:
            return each
        seen.add(key(each))
    return None


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
