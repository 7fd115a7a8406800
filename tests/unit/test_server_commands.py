"""What a command may be called with, by its handler's signature, and QEMU's words for the rest."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Optional

import pytest

from txqmp.server.commands import Call, CommandError, CommandTable, Kind, RegisteredCommand, kind_of


if TYPE_CHECKING:
    from somewhere import Unknown


def bound(handler: Any, **given: Any) -> dict[str, Any]:
    command = RegisteredCommand.of("test", handler, oob=False)
    return command.bind({name.replace("_", "-"): value for name, value in given.items()})


def refused(handler: Any, **given: Any) -> str:
    with pytest.raises(CommandError) as caught:
        bound(handler, **given)
    assert caught.value.error_class == "GenericError"
    return caught.value.desc


def nothing(call: Unknown) -> None:
    """The type of the call need not be known at run time."""


def typed(
    call: Call,
    text: str = "",
    number: int = 0,
    flag: bool = False,
    ratio: float = 0.0,
    items: list[Any] = [],  # noqa: B006
    members: Mapping[str, Any] = {},
    names: list[str] | None = None,
    mode: Literal["on", "off"] = "on",
    modes: list[Literal["on", "off"]] | None = None,
    anything: Any = None,
    whatever=None,  # type: ignore[no-untyped-def]
) -> None:
    pass


def test_arguments_are_the_parameters() -> None:
    def handler(call: Call, job_id: str, auto_finalize: bool = True) -> None:
        pass

    assert bound(handler, job_id="j") == {"job_id": "j"}
    assert bound(handler, job_id="j", auto_finalize=False) == {
        "job_id": "j",
        "auto_finalize": False,
    }
    assert refused(handler) == "Parameter 'job-id' is missing"
    command = RegisteredCommand.of("test", handler, oob=False)
    with pytest.raises(CommandError, match="Parameter 'job-id' is missing"):
        command.bind({"job_id": "j"})


def test_names_that_are_keywords() -> None:
    def handler(call: Call, from_: str) -> None:
        pass

    assert RegisteredCommand.of("test", handler, oob=False).bind({"from": "a"}) == {"from_": "a"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"text": 1}, "Invalid parameter type for 'text', expected: string"),
        ({"text": None}, "Invalid parameter type for 'text', expected: string"),
        ({"number": "1"}, "Invalid parameter type for 'number', expected: integer"),
        ({"number": 1.0}, "Invalid parameter type for 'number', expected: integer"),
        ({"number": True}, "Invalid parameter type for 'number', expected: integer"),
        ({"number": 1 << 63}, "Invalid parameter type for 'number', expected: integer"),
        ({"flag": 1}, "Invalid parameter type for 'flag', expected: boolean"),
        ({"ratio": "1"}, "Invalid parameter type for 'ratio', expected: number"),
        ({"ratio": False}, "Invalid parameter type for 'ratio', expected: number"),
        ({"items": {}}, "Invalid parameter type for 'items', expected: array"),
        ({"members": []}, "Invalid parameter type for 'members', expected: object"),
        ({"names": ["a", 1]}, "Invalid parameter type for 'names[1]', expected: string"),
        ({"names": None}, "Invalid parameter type for 'names', expected: array"),
        ({"mode": "left"}, "Parameter 'mode' does not accept value 'left'"),
        ({"mode": 1}, "Invalid parameter type for 'mode', expected: string"),
        ({"modes": ["left"]}, "Parameter 'null' does not accept value 'left'"),
        ({"other": 1}, "Parameter 'other' is unexpected"),
    ],
    ids=str,
)
def test_wrong_arguments(given: dict[str, Any], words: str) -> None:
    assert refused(typed, **given) == words


@pytest.mark.parametrize(
    "given",
    [
        {"text": "é"},
        {"number": -(1 << 63)},
        {"number": (1 << 63) - 1},
        {"flag": True},
        {"ratio": 1},
        {"ratio": 0.5},
        {"items": [1, None]},
        {"members": {"a": 1}},
        {"names": []},
        {"names": ["a"]},
        {"mode": "off"},
        {"modes": ["on", "off"]},
        {"anything": None},
        {"whatever": [1]},
    ],
    ids=str,
)
def test_right_arguments(given: dict[str, Any]) -> None:
    assert bound(typed, **given) == given


def test_order_of_checks() -> None:
    """Each in the order of the signature; what is unexpected comes last."""

    def handler(call: Call, a: str, b: int) -> None:
        pass

    assert refused(handler, x=1) == "Parameter 'a' is missing"
    assert refused(handler, x=1, a=1) == "Invalid parameter type for 'a', expected: string"
    assert refused(handler, b="", a="") == "Invalid parameter type for 'b', expected: integer"
    assert refused(handler, x=1, a="", b=1) == "Parameter 'x' is unexpected"


def test_further_arguments() -> None:
    def handler(call: Call, a: str = "", **others: Any) -> None:
        pass

    assert bound(handler, a="1", read_zeroes=True) == {"a": "1", "read_zeroes": True}
    assert refused(handler, call=1) == "Parameter 'call' is unexpected"
    command = RegisteredCommand.of("test", handler, oob=False)
    with pytest.raises(CommandError, match="Parameter 'b_c' is unexpected"):
        command.bind({"b-c": 1, "b_c": 2})

    def positional(call: Call, /, **others: Any) -> None:
        pass

    assert bound(positional, call=1) == {"call": 1}


def test_handlers_of_all_sorts() -> None:
    class Machine:
        def method(self, call: Call, level: int) -> None:
            pass

        def __call__(self, call: Call, level: int) -> None:
            pass

    def function(call: Call, level: int, unit: str) -> None:
        pass

    for handler in (Machine().method, Machine(), functools.partial(function, unit="dB")):
        assert bound(handler, level=1) == {"level": 1}
        assert refused(handler, level="") == "Invalid parameter type for 'level', expected: integer"
    assert bound(nothing) == {}


def misfit_none() -> None:
    pass


def misfit_keyword(*, call: Call) -> None:
    pass


def misfit_positional(call: Call, device: str, /) -> None:
    pass


def misfit_rest(call: Call, *devices: str) -> None:
    pass


def misfit_type(call: Call, when: complex) -> None:
    pass


def misfit_union(call: Call, when: int | str) -> None:
    pass


def misfit_literal(call: Call, when: Literal[1]) -> None:
    pass


def misfit_name(call: Call, when: Unknown) -> None:
    pass


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        (misfit_none, "first parameter takes the call"),
        (misfit_keyword, "first parameter takes the call"),
        (misfit_positional, "first parameter|device cannot be given by keyword"),
        (misfit_rest, "devices cannot be given by keyword"),
        (misfit_type, "when: .*complex.* is no type of argument"),
        (misfit_union, "when: .* is no type of argument"),
        (misfit_literal, "when: .* is no type of argument"),
        (misfit_name, "when: .*Unknown"),
    ],
)
def test_handlers_that_do_not_fit(handler: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        CommandTable().register("test", handler)


def test_kinds() -> None:
    assert kind_of(Optional[int]) == kind_of(int | None) == Kind("integer")  # noqa: UP045
    assert kind_of(dict[str, int]) == kind_of(Mapping[str, int]) == Kind("object")
    assert kind_of(list[list[str]]) == Kind("array", element=kind_of(list[str]))
    assert kind_of(object) is None


# The table


def test_table() -> None:
    table = CommandTable()

    @table.command("first", oob=True)
    def first(call: Call) -> None:
        pass

    table.register("second", nothing)
    assert [command.name for command in table] == ["first", "second"]
    found = table.find("first")
    assert found is not None
    assert (found.handler, found.oob) == (first, True)
    table.register("first", nothing)
    found = table.find("first")
    assert found is not None
    assert (found.handler, found.oob) == (nothing, False)
    table.unregister("first")
    assert table.find("first") is None
    with pytest.raises(KeyError):
        table.unregister("first")


def test_fallback() -> None:
    table = CommandTable()
    table.fallback = nothing
    table.register("known", typed)
    found = table.find("unknown")
    assert found is not None
    assert (found.name, found.handler, found.oob) == ("unknown", nothing, False)
    assert found.bind({"call": 1, "any": [], "a-b": 1, "a_b": 2}) == {}
    table.fallback_oob = {"urgent"}.__contains__
    urgent, known = table.find("urgent"), table.find("known")
    assert urgent is not None
    assert urgent.oob
    assert known is not None
    assert known.handler is typed


def test_command_error() -> None:
    error = CommandError("No such device", "DeviceNotFound")
    assert (str(error), error.desc, error.error_class) == (
        "No such device",
        "No such device",
        "DeviceNotFound",
    )
