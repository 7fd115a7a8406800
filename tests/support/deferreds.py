"""Ask a Deferred how it stands, without a reactor.

Each helper takes a Deferred or a coroutine. :func:`success` and :func:`failure` consume the
outcome, so that a failure that was looked at is no longer an unhandled error.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, NoReturn, TypeVar

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure


T = TypeVar("T")
Waiting = Deferred[T] | Coroutine[Any, Any, T] | Generator[Any, Any, T]

_NOTHING = object()


def success(waiting: Waiting[T]) -> T:
    """Return the result that ``waiting`` has; fail the test if it has none yet, or an error."""
    __tracebackhide__ = True
    deferred = ensureDeferred(waiting)
    outcome = _outcome(deferred, consume=True)
    if outcome is _NOTHING:
        _fail(f"a result was expected, but {deferred!r} has not fired")
    if isinstance(outcome, Failure):
        _fail(f"a result was expected, but there was an error:\n{outcome.getTraceback()}", outcome)
    return outcome


def failure(waiting: Waiting[Any], *types: type[BaseException]) -> Failure:
    """Return the Failure that ``waiting`` has; fail the test if it has none, or another.

    :param types: the exception types to expect; none given means any.
    """
    __tracebackhide__ = True
    deferred = ensureDeferred(waiting)
    outcome = _outcome(deferred, consume=True)
    expected = " or ".join(each.__name__ for each in types) or "an error"
    if outcome is _NOTHING:
        _fail(f"{expected} was expected, but {deferred!r} has not fired")
    if not isinstance(outcome, Failure):
        _fail(f"{expected} was expected, but the result was {outcome!r}")
    if types and not outcome.check(*types):
        _fail(f"{expected} was expected, but there was:\n{outcome.getTraceback()}", outcome)
    return outcome


def pending(waiting: Waiting[Any]) -> None:
    """Fail the test if ``waiting`` already has a result or an error."""
    __tracebackhide__ = True
    outcome = _outcome(ensureDeferred(waiting), consume=False)
    if isinstance(outcome, Failure):
        _fail(f"nothing was expected yet, but there was:\n{outcome.getTraceback()}", outcome)
    if outcome is not _NOTHING:
        _fail(f"nothing was expected yet, but the result was {outcome!r}")


def _outcome(deferred: Deferred[Any], *, consume: bool) -> Any:
    """Return what the Deferred fired with, or ``_NOTHING``.

    A Deferred that has not fired keeps what it will fire with.
    """
    seen: list[Any] = []
    looking = True

    def look(outcome: Any) -> Any:
        if not looking:
            return outcome
        seen.append(outcome)
        return None if consume or isinstance(outcome, Failure) else outcome

    deferred.addBoth(look)
    looking = False
    return seen[0] if seen else _NOTHING


def _fail(message: str, cause: Failure | None = None) -> NoReturn:
    __tracebackhide__ = True
    raise pytest.fail.Exception(message) from (cause.value if cause is not None else None)
