"""One watched VM: its state, its numbers, and what becomes a record."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet import error as tx_error
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IReactorTime

from txqmp.errors import ConnectError, ConnectFailure, DisconnectedError, QMPError
from txqmp.fleet.naming import clean
from txqmp.fleet.records import Kind, Past, Record, timestamp, utc
from txqmp.messages import Event
from txqmp.observer import Snapshot
from txqmp.protocol import QMPProtocol


NOT_RUNNING = "the daemon did not run"
"""Why there is a gap before the first session of a VM that is remembered from before."""

WITHOUT_A_WORD = "without a word"
"""How a VM ended whose connection ended, and no SHUTDOWN came before."""

_UNGRACEFUL = frozenset({"guest-panic", "host-error"})


class VMState(enum.Enum):
    """How a VM stands."""

    CONNECTING = "connecting"
    """No session yet; one is tried for."""
    BUSY = "busy"
    """
    Its monitor takes us, or nearly, and says nothing: another client holds it (fact G1), or QEMU is
    stopped (fact G5).
    """
    UP = "up"
    """A session runs, and it is known whose."""
    GAP = "gap"
    """The session was lost, and the VM may still run."""
    GONE = "gone"
    """The VM has ended, as far as can be told: it said so, or nobody listens on its socket."""


class VM:
    """
    One watched VM. It outlives its sessions, and so do its numbers.

    :param name: as it is known in every record.
    :param clock: tells the time.
    :param emit: takes the records.
    :param past: what is remembered of it.

    :ivar state: how the VM stands.
    :ivar where: the place of its monitor, or the one that it dialled; ``""`` before it did.
    :ivar uuid: the last that it said, ``None`` where it has none.
    :ivar session: the number of its newest session; 0 before the first.
    :ivar seq: the number of its newest record; 0 before the first.
    :ivar events: how many events came from it.
    :ivar last_event: when the last one came, in seconds since the epoch; ``None`` before.
    :ivar problem: why there is no session, in words; ``None`` while there is one.
    :ivar refusals: how often another QEMU claimed to be this VM.
    """

    def __init__(
        self,
        name: str,
        clock: IReactorTime,
        emit: Callable[[Record], None],
        past: Past | None = None,
    ) -> None:
        self.name = name
        self.state = VMState.CONNECTING
        self.where = ""
        self.uuid: str | None = None
        self.session = 0
        self.seq = 0
        self.events = 0
        self.last_event: float | None = None
        self.problem: str | None = None
        self.refusals = 0
        self._clock = clock
        self._emit = emit
        self._current: QMPProtocol | None = None
        self._came_before = False
        self._local = False
        # When something of the VM was last heard.
        self._heard = 0.0
        # Since when nobody listens, and why.
        self._hole: tuple[float, str] | None = None
        if past is not None:
            self.remember(past)

    def __repr__(self) -> str:
        return f"<VM {self.name} {self.state.value}>"

    @property
    def identity(self) -> str:
        """What stays the VM's if it is named anew: its UUID, where it has one, else its name."""
        return self.uuid or self.name

    def remember(self, past: Past) -> None:
        """Go on where a fleet before this one left off. To be called before anything is told."""
        self.session = past.session
        self.seq = past.seq
        if past.identity is not None and past.identity != self.name:
            self.uuid = past.identity
        self._hole = (past.last_time, NOT_RUNNING)

    # Sessions

    def came(
        self, session: QMPProtocol, details: Mapping[str, Any], at: float, uuid: str | None = None
    ) -> None:
        """
        A session began.

        :param details: what to say of it, beside QEMU's version.
        :param at: when.
        :param uuid: the VM's UUID.
        """
        self.session += 1
        self.state = VMState.UP
        self.problem = None
        self.uuid = uuid
        self._current = session
        self._came_before = True
        self._heard = self._clock.seconds()
        self._local = isinstance(getattr(session.transport, "getPeer", str)(), UNIXAddress)
        hole, self._hole = self._hole, None
        self._record(Kind.CONNECTED, {**details, **_version(session)}, at)
        if hole is not None:
            since, reason = hole
            since = min(since, at)
            self._record(
                Kind.GAP,
                {
                    "since": timestamp(utc(since)),
                    "until": timestamp(utc(at)),
                    "seconds": round(at - since, 6),
                    "reason": reason,
                },
                at,
            )
        if session.early_events_dropped:
            reason = "too many came before the session ran"
            self.dropped(session.early_events_dropped, reason, at)

    def snapshot(self, snapshot: Snapshot, at: float | None = None) -> None:
        """
        How the VM is.

        :param at: when it said so; now, by default.
        """
        details = dict(snapshot.results)
        if snapshot.errors:
            details["errors"] = {name: str(error) for name, error in snapshot.errors.items()}
        self._record(Kind.SNAPSHOT, details, at)

    def event(self, event: Event, at: float | None = None) -> None:
        """
        QEMU sent an event.

        :param at: when it came; now, by default.
        """
        if at is None:
            at = self._clock.seconds()
        self.seq += 1
        self.events += 1
        self._heard = self.last_event = at
        self._emit(
            Record(
                vm=self.name,
                identity=self.uuid or self.name,
                seq=self.seq,
                session=self.session,
                received=at,
                kind=Kind.EVENT,
                event=event,
            )
        )

    def lost(self, session: QMPProtocol, error: QMPError, reason: str | None = None) -> None:
        """
        The session ended.

        :param error: tells how.
        :param reason: why, where we know it better.
        """
        if session is not self._current:
            return
        self._current = None
        reason = reason or getattr(error, "reason", None) or str(error)
        details: dict[str, Any] = {"reason": reason, "expected": False}
        if isinstance(error, DisconnectedError):
            details["expected"] = error.expected
        ended = None if session.left else self._ended(session, error)
        self.state = VMState.GAP
        if ended is not None:
            details["ended"] = ended
            if session.shutting_down:
                self.state = VMState.GONE
        if session.last_shutdown is not None:
            details["shutdown"] = session.last_shutdown.data
        if session.malformed:
            details["malformed"] = session.malformed
        self.problem = reason
        now = self._clock.seconds()
        # A network can be silent for long before that is an end.
        silent = isinstance(error.__cause__, tx_error.ConnectionLost) and not self._local
        self._hole = (self._heard if silent else now, reason)
        self._record(Kind.DISCONNECTED, details, now)

    def _ended(self, session: QMPProtocol, error: QMPError) -> dict[str, Any] | None:
        """How the VM ended; ``None`` where nothing tells that it has."""
        if session.shutting_down and session.last_shutdown is not None:
            data = session.last_shutdown.data
            guest, reason = data.get("guest"), data.get("reason")
            by = "guest" if guest is True else "host" if guest is False else "unknown"
            reason = clean(reason) if isinstance(reason, str) else "no reason given"
            return {"by": by, "graceful": reason not in _UNGRACEFUL, "reason": reason}
        closed = isinstance(error.__cause__, (tx_error.ConnectionDone, tx_error.ProcessDone))
        cut = isinstance(error.__cause__, tx_error.ConnectionLost) and self._local
        if closed or cut:
            return {"by": "unknown", "graceful": False, "reason": WITHOUT_A_WORD}
        return None

    def failed(self, error: QMPError) -> None:
        """An attempt to begin a session came to nothing."""
        self.problem = reason = str(error)
        if _is_held(error):
            if self.state is not VMState.BUSY:
                self.state = VMState.BUSY
                self._record(Kind.BUSY, {"reason": reason})
                if self._hole is None:
                    self._hole = (self._clock.seconds(), reason)
                elif reason not in self._hole[1]:
                    self._hole = (self._hole[0], f"{self._hole[1]}; then {reason}")
        elif not self._came_before:
            self.state = VMState.CONNECTING
        elif isinstance(error, ConnectError) and error.kind in _NOBODY:
            self.state = VMState.GONE
        elif self.state is VMState.BUSY:
            self.state = VMState.GAP

    def turned_away(self, reason: str) -> None:
        """What is at its place claims to be another VM, and is not heard."""
        self.problem = reason
        self.state = VMState.GAP if self._came_before else VMState.CONNECTING

    # What happens besides

    def dropped(self, count: int, reason: str, at: float | None = None) -> None:
        """Events were lost before they got a number."""
        self._record(Kind.DROPPED, {"count": count, "reason": reason}, at)

    def refused(self, peer: str, reason: str) -> bool:
        """
        Another QEMU claims to be this VM, and was refused. As it comes back time and again, only
        the 1st, 2nd, 4th, 8th … time makes a record.

        :param peer: who it was, such as ``"pid 4711"``.
        :returns: whether there was a record.
        """
        self.refusals += 1
        if self.refusals & (self.refusals - 1):
            return False
        self._record(Kind.REFUSED, {"peer": peer, "reason": reason, "count": self.refusals})
        return True

    def gone(self, reason: str) -> None:
        """The VM is watched no more."""
        self.state = VMState.GONE
        self.problem = reason
        self._record(Kind.GONE, {"reason": reason})

    def missing(self, since: float) -> None:
        """
        The VM was there before the daemon did not run, and has not come back.

        :param since: when it was heard last, in seconds since the epoch.
        """
        self.gone(f"{NOT_RUNNING}, and it did not come back: last heard {timestamp(utc(since))}")

    def _record(self, kind: Kind, details: Mapping[str, Any], at: float | None = None) -> None:
        self.seq += 1
        self._emit(
            Record(
                vm=self.name,
                identity=self.identity,
                seq=self.seq,
                session=self.session,
                received=self._clock.seconds() if at is None else at,
                kind=kind,
                details=details,
            )
        )


_NOBODY = frozenset({ConnectFailure.ABSENT, ConnectFailure.REFUSED})


def _is_held(error: QMPError) -> bool:
    """Whether another client seems to hold the monitor (facts G1, G2)."""
    if not isinstance(error, ConnectError):
        return False
    silent = error.kind is ConnectFailure.SILENT and error.phase == "greeting"
    return silent or error.kind is ConnectFailure.BUSY


def _version(session: QMPProtocol) -> dict[str, str]:
    greeting = session.greeting
    if greeting is None:
        return {}
    version = {"qemu": ".".join(map(str, greeting.version))}
    if greeting.package:
        version["package"] = greeting.package
    return version
