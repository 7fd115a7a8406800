"""One command on its way: its caller is told once, its descriptor is closed once."""

from __future__ import annotations

import os

import pytest
from twisted.internet.defer import CancelledError

from support.deferreds import failure, pending, success
from txqmp.pending import PendingCommand


def command(
    abandoned: list[PendingCommand] | None = None, descriptor: int | None = None
) -> PendingCommand:
    gone = [] if abandoned is None else abandoned
    return PendingCommand(gone.append, "stop", b"{}", "id-1", False, 5.0, descriptor, False)


def test_the_caller_gets_the_result_once() -> None:
    one = command()
    deferred = one._deferred
    assert deferred is not None
    assert not one.abandoned
    pending(deferred)
    one.succeed(1)
    one.succeed(2)
    one.fail(ValueError())
    assert success(deferred) == 1


def test_the_caller_gets_the_error_once() -> None:
    one = command()
    deferred = one._deferred
    assert deferred is not None
    one.fail(ValueError("first"))
    one.fail(ValueError("second"))
    one.succeed(1)
    assert failure(deferred, ValueError).getErrorMessage() == "first"


def test_a_caller_that_cancels_has_gone() -> None:
    gone: list[PendingCommand] = []
    one = command(gone)
    deferred = one._deferred
    assert deferred is not None
    deferred.cancel()
    failure(deferred, CancelledError)
    assert gone == [one]
    assert one.abandoned
    one.succeed(1)
    one.fail(ValueError())


def test_the_descriptor_is_closed_once() -> None:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    one = command(descriptor=descriptor)
    one.close_descriptor()
    with pytest.raises(OSError):
        os.fstat(descriptor)
    again = os.open(os.devnull, os.O_RDONLY)  # very likely of the same number
    try:
        one.close_descriptor()
        os.fstat(again)
    finally:
        os.close(again)


def test_a_command_without_a_descriptor_closes_none() -> None:
    command().close_descriptor()
