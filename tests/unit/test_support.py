"""The helpers that ask a Deferred how it stands."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred, fail, succeed

from support.deferreds import failure, pending, success
from support.programs import require


Failed = pytest.fail.Exception


async def returns(value: object) -> object:
    return value


def test_success() -> None:
    assert success(succeed(1)) == 1
    assert success(returns(2)) == 2
    assert success(succeed(None)) is None


def test_success_of_what_has_not_fired() -> None:
    with pytest.raises(Failed, match="has not fired"):
        success(Deferred())


def test_success_of_an_error() -> None:
    with pytest.raises(Failed, match="ZeroDivisionError: by nought") as caught:
        success(fail(ZeroDivisionError("by nought")))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_success_that_comes_too_late_is_not_lost() -> None:
    deferred: Deferred[int] = Deferred()
    with pytest.raises(Failed):
        success(deferred)
    deferred.callback(3)
    assert success(deferred) == 3


def test_failure() -> None:
    assert failure(fail(KeyError("k"))).check(KeyError)
    assert failure(fail(KeyError("k")), KeyError).value.args == ("k",)
    assert failure(fail(KeyError("k")), ValueError, LookupError).check(KeyError)


def test_failure_of_another_type() -> None:
    with pytest.raises(Failed, match=r"ValueError was expected, but there was:(.|\n)*KeyError"):
        failure(fail(KeyError("k")), ValueError)


def test_failure_of_a_result() -> None:
    with pytest.raises(Failed, match="an error was expected, but the result was 1"):
        failure(succeed(1))


def test_failure_of_what_has_not_fired() -> None:
    with pytest.raises(Failed, match=r"KeyError was expected, but .* has not fired"):
        failure(Deferred(), KeyError)


def test_pending_leaves_the_result() -> None:
    deferred: Deferred[int] = Deferred()
    pending(deferred)
    deferred.callback(4)
    assert success(deferred) == 4


def test_pending_leaves_the_error() -> None:
    deferred: Deferred[int] = Deferred()
    pending(deferred)
    deferred.errback(KeyError("k"))
    failure(deferred, KeyError)


def test_pending_of_a_result() -> None:
    deferred = succeed(None)
    with pytest.raises(Failed, match="the result was None"):
        pending(deferred)
    assert success(deferred) is None


def test_pending_of_an_error() -> None:
    with pytest.raises(Failed, match="KeyError"):
        pending(fail(KeyError("k")))


def test_require(monkeypatch: pytest.MonkeyPatch) -> None:
    assert require("sh").endswith("/sh")
    monkeypatch.delenv("TXQMP_REQUIRE_REAL", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"txqmp-nothing .*Debian package nothing"):
        require("txqmp-nothing", package="nothing")
    monkeypatch.setenv("TXQMP_REQUIRE_REAL", "1")
    with pytest.raises(Failed, match="TXQMP_REQUIRE_REAL"):
        require("txqmp-nothing")
