"""One watched VM: its state, its numbers, and what becomes a record."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from txqmp.errors import ConnectError, ConnectFailure, DisconnectedError, QMPError
from txqmp.fleet.records import Kind, Record, timestamp, utc
from txqmp.messages import Event
from txqmp.observer import Snapshot, ask
from txqmp.protocol import QMPProtocol


QUERIES = ("query-status", "query-name", "query-uuid")
"""What a snapshot asks."""


class VMState(enum.Enum):
    """How a VM stands."""

    CONNECTING = "connecting"
    """No session yet; one is tried for."""
    BUSY = "busy"
    """Its monitor takes us, or nearly, and says nothing: another client holds it (fact G1)."""
    UP = "up"
    """A session runs."""
    GAP = "gap"
    """The session was lost, and the VM may still run."""
    GONE = "gone"
    """The VM has ended, as far as can be told."""


class VM:
    """
    One watched VM. It outlives its sessions, and so do its numbers.

    :param name: as it is known in every record.
    :param clock: tells the time.
    :param emit: takes the records.

    :ivar state: how the VM stands.
    :ivar session: the number of its newest session; 0 before the first.
    :ivar seq: the number of its newest record; 0 before the first.
    :ivar problem: why there is no session, in words; ``None`` while there is one.
    :ivar refusals: how often another QEMU claimed to be this VM.
    """

    _log = Logger()

    def __init__(self, name: str, clock: IReactorTime, emit: Callable[[Record], None]) -> None:
        self.name = name
        self.state = VMState.CONNECTING
        self.session = 0
        self.seq = 0
        self.problem: str | None = None
        self.refusals = 0
        self._clock = clock
        self._emit = emit
        self._current: QMPProtocol | None = None
        self._lost: tuple[float, str] | None = None

    def __repr__(self) -> str:
        return f"<VM {self.name} {self.state.value}>"

    def came(self, session: QMPProtocol, details: Mapping[str, Any]) -> None:
        """
        A session began.

        :param details: what to say of it, beside QEMU's version.
        """
        self.session += 1
        self.state = VMState.UP
        self.problem = None
        self._current = session
        lost, self._lost = self._lost, None
        self._record(Kind.CONNECTED, {**details, **_version(session)})
        if lost is not None:
            since, reason = lost
            now = self._clock.seconds()
            self._record(
                Kind.GAP,
                {
                    "since": timestamp(utc(since)),
                    "until": timestamp(utc(now)),
                    "seconds": round(now - since, 6),
                    "reason": reason,
                },
            )
        if session.early_events_dropped:
            self.dropped(session.early_events_dropped, "too many came before the session ran")
        asked = ask(session, *QUERIES).addCallback(self._took_snapshot, session)
        asked.addErrback(lambda failure: self._log.failure("{vm}: no snapshot", failure, vm=self))

    def event(self, event: Event) -> None:
        """QEMU sent an event."""
        self.seq += 1
        self._emit(
            Record(
                vm=self.name,
                seq=self.seq,
                session=self.session,
                received=self._clock.seconds(),
                kind=Kind.EVENT,
                event=event,
            )
        )

    def lost(self, session: QMPProtocol, error: QMPError) -> None:
        """The session ended; ``error`` tells how."""
        if session is not self._current:
            return
        self._current = None
        reason = getattr(error, "reason", None) or str(error)
        details: dict[str, Any] = {"reason": reason, "expected": False}
        self.state = VMState.GAP
        if isinstance(error, DisconnectedError):
            details["expected"] = error.expected
            if error.shutdown is not None:
                self.state = VMState.GONE
                details["shutdown"] = error.shutdown.data
        if session.malformed:
            details["malformed"] = session.malformed
        self.problem = reason
        self._lost = (self._clock.seconds(), reason)
        self._record(Kind.DISCONNECTED, details)

    def failed(self, error: QMPError) -> None:
        """An attempt to begin a session came to nothing."""
        self.problem = str(error)
        if _is_held(error):
            if self.state is not VMState.BUSY:
                self.state = VMState.BUSY
                self._record(Kind.BUSY, {"reason": str(error)})
        elif not self.session:
            self.state = VMState.CONNECTING
        elif isinstance(error, ConnectError) and error.kind in _NOBODY:
            self.state = VMState.GONE
        elif self.state is VMState.BUSY:
            self.state = VMState.GAP

    def dropped(self, count: int, reason: str) -> None:
        """Events were lost before they got a number."""
        self._record(Kind.DROPPED, {"count": count, "reason": reason})

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
        self._record(Kind.GONE, {"reason": reason})

    def _took_snapshot(self, snapshot: Snapshot, session: QMPProtocol) -> None:
        if session is not self._current:
            return
        details = dict(snapshot.results)
        if snapshot.errors:
            details["errors"] = {name: str(error) for name, error in snapshot.errors.items()}
        self._record(Kind.SNAPSHOT, details)

    def _record(self, kind: Kind, details: Mapping[str, Any]) -> None:
        self.seq += 1
        self._emit(
            Record(
                vm=self.name,
                seq=self.seq,
                session=self.session,
                received=self._clock.seconds(),
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
