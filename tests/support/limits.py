"""The suite's time limit: a Deferred that never fires fails its test, and only its test.

pytest-timeout raises from a signal handler. That ends code that loops, but while the reactor waits
the exception comes up inside the reactor, which logs it and goes on waiting. So the Deferred of a
test or of an async fixture is cancelled here, a little before, and the traceback shows what it was
waiting for.

This is a pytest plugin. The limit is pytest-timeout's: its ini option, command line option or
marker.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Generator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.python.failure import Failure


#: How much of the limit the Deferreds of a test get together.
SHARE = 0.8

#: What each gets at least, even when that is used up: a fixture is to be torn down then.
LEAST = 0.1

_item: pytest.Item | None = None
_limit = 0.0
_deadline = 0.0


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    global _item
    _item = None
    return (yield)


def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> None:
    global _item, _limit, _deadline
    _item = item
    _limit = settings.timeout
    _deadline = time.monotonic() + _limit * SHARE


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    function = pyfuncitem.obj
    hypothesis = getattr(function, "hypothesis", None)
    if hypothesis is None:
        pyfuncitem.obj = _limited(function, "the test")
        try:
            return (yield)
        finally:
            pyfuncitem.obj = function
    # pytest-twisted wraps the inner test and leaves it so, which breaks the next parameters.
    inner = hypothesis.inner_test
    hypothesis.inner_test = _limited(inner, "the test")
    try:
        return (yield)
    finally:
        hypothesis.inner_test = inner


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    function = fixturedef.func
    what = f"the fixture {fixturedef.argname}"
    if inspect.isasyncgenfunction(function):
        fixturedef.func = _limited_generator(function, what)
    elif inspect.iscoroutinefunction(function):
        fixturedef.func = _limited(function, what)
    try:
        return (yield)
    finally:
        fixturedef.func = function


def limit(waiting: Deferred[Any], what: str) -> Deferred[Any]:
    """Return a Deferred that fires as ``waiting`` does, or fails when the test's time is up.

    :param what: whose Deferred it is, for the message.
    """
    from twisted.internet import reactor

    item = _item
    if item is None:
        return waiting
    seconds = max(_deadline - time.monotonic(), _limit * LEAST)
    outcome: Deferred[Any] = Deferred()
    late = False

    def expire() -> None:
        nonlocal late
        late = True
        # The signal must not come while pytest writes its report of this.
        item.config.hook.pytest_timeout_cancel_timer(item=item)
        waiting.cancel()
        if not outcome.called:  # it caught the cancellation and waits on
            give_up(None)

    def give_up(cause: BaseException | None) -> None:
        problem = pytest.fail.Exception(f"{what} was still waiting after {seconds:.1f} s")
        problem.__cause__ = cause
        outcome.errback(Failure(problem))

    def finish(result: Any) -> None:
        if timer is not None and timer.active():
            timer.cancel()
        if outcome.called:
            return
        if late:
            give_up(result.value if isinstance(result, Failure) else None)
        else:
            outcome.callback(result)

    timer = None
    waiting.addBoth(finish)
    if not outcome.called:
        timer = reactor.callLater(seconds, expire)
    return outcome


def _limited(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(**arguments: Any) -> Any:
        result = function(**arguments)
        if inspect.iscoroutine(result):
            result = ensureDeferred(result)
        return limit(result, what) if isinstance(result, Deferred) else result

    return call


def _limited_generator(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(**arguments: Any) -> _LimitedGenerator:
        return _LimitedGenerator(function(**arguments), what)

    return call


class _LimitedGenerator:
    """An async generator whose every step is limited."""

    def __init__(self, generator: Any, what: str) -> None:
        self._generator = generator
        self._what = what

    def __anext__(self) -> Deferred[Any]:
        return limit(ensureDeferred(self._generator.__anext__()), self._what)
