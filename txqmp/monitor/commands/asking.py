"""How the running daemon is asked to do something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogBeginner
from twisted.python.failure import Failure

from txqmp import (
    ConnectError,
    ConnectFailure,
    ExecuteError,
    QMPError,
    SessionSettings,
    Timeouts,
    connect,
)
from txqmp.monitor.commands.errors import CommandFailedError, NoDaemonError
from txqmp.monitor.spool import Control, SpoolLockedError
from txqmp.monitor.statedir import control_socket, spool_directory


SETTINGS = SessionSettings(
    timeouts=Timeouts(connect=5, greeting=5, negotiation=5, command=60, close=1)
)
"""How long the daemon may take."""

Ask = Callable[[str, str, Mapping[str, Any]], Any]
"""Asks the daemon of a state directory for something, as :func:`ask` does."""


def ask(state: str, command: str, arguments: Mapping[str, Any]) -> Any:
    """
    Have the running daemon do something. This runs the reactor, so it can be done once.

    :param state: the state directory.
    :param command: of those in :mod:`txqmp.monitor.control`.
    :returns: the answer.
    :raises NoDaemonError: none takes commands there.
    :raises CommandFailedError: it does not do it, or does not answer.
    """
    from twisted.internet import reactor as installed

    reactor: Any = installed
    # What is wrong is told in one line, which is not in a log.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    answers: list[Any] = []
    asking = Deferred.fromCoroutine(_ask(reactor, state, command, arguments))
    asking.addBoth(answers.append)
    with suppress(KeyboardInterrupt):
        if not answers:
            asking.addBoth(lambda _: reactor.stop())
            reactor.run()
    if not answers:
        raise KeyboardInterrupt
    if isinstance(answers[0], Failure):
        answers[0].raiseException()
    return answers[0]


async def _ask(reactor: Any, state: str, command: str, arguments: Mapping[str, Any]) -> Any:
    path = control_socket(state)
    try:
        session = await connect(reactor, path, settings=SETTINGS)
    except ConnectError as problem:
        if problem.kind in (ConnectFailure.ABSENT, ConnectFailure.REFUSED):
            raise NoDaemonError from problem
        raise CommandFailedError(f"the daemon does not take commands: {problem}") from problem
    except QMPError as problem:
        raise CommandFailedError(f"{path}: {problem}") from problem
    try:
        return await session.execute(command, dict(arguments))
    except ExecuteError as problem:
        raise CommandFailedError(problem.desc) from problem
    except QMPError as problem:
        raise CommandFailedError(f"the daemon did not answer: {problem}") from problem
    finally:
        await session.disconnect()


def change(
    ask: Ask,
    state: str,
    command: str,
    arguments: Mapping[str, Any],
    alone: Callable[[Control], int | None],
) -> int:
    """
    Have something changed: by the daemon, or by ourselves where none runs.

    :param command: what the daemon is asked.
    :param alone: what does the same.
    :returns: how many were changed.
    :raises CommandFailedError: the daemon refuses, or runs and does not answer.
    :raises SpoolError: it cannot be done.
    """
    try:
        return int(ask(state, command, arguments).get("count", 0))
    except NoDaemonError:
        pass
    try:
        with Control(spool_directory(state)) as control:
            return alone(control) or 0
    except SpoolLockedError as problem:
        raise CommandFailedError(f"{problem}, but takes no commands") from problem
