"""
The commands that a server knows: what each may be called with, and the call itself.

The arguments of a command are the parameters of its handler. They are checked against its
signature before it runs, as QEMU checks them against its schema, and refused in QEMU's words.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union

import attrs

from txqmp.errors import QMPError


if TYPE_CHECKING:
    from txqmp.server.protocol import QMPServerProtocol


NEGOTIATE = "qmp_capabilities"
"""The one command of negotiation mode, which the server runs itself."""


class CommandError(QMPError):
    """
    Raised by a command's handler to answer with an error.

    :ivar desc: the text for people.
    :ivar error_class: QMP's class of the error (fact G28).
    """

    def __init__(self, desc: str, error_class: str = "GenericError") -> None:
        super().__init__(desc)
        self.desc = desc
        self.error_class = error_class


@attrs.define(eq=False, kw_only=True)
class Call:
    """
    One call of a command.

    :ivar client: whose call it is.
    :ivar name: the command's name.
    :ivar arguments: the arguments as they came, by their names on the wire.
    :ivar id: the call's id, any JSON value, or :data:`~txqmp.messages.NO_ID`.
    :ivar oob: whether it was called out of band.
    """

    client: QMPServerProtocol
    name: str
    arguments: Mapping[str, Any]
    id: Any
    oob: bool = False
    _afterwards: list[Callable[[], Any]] = attrs.field(factory=list, init=False, repr=False)

    def take_descriptor(self) -> int:
        """
        Take the file descriptor that came with the command; it is the caller's to close. Of
        several the first is given, and the others are closed (fact G31).

        :raises CommandError: there is none.
        """
        descriptor = self.client.take_descriptor()
        if descriptor is None:
            raise CommandError("No file descriptor supplied via SCM_RIGHTS")
        return descriptor

    def after_reply(self, callback: Callable[[], Any]) -> None:
        """
        Have a function called when the call was answered, before the client's next command: to
        end the connection, for example.
        """
        self._afterwards.append(callback)

    def take_afterwards(self) -> list[Callable[[], Any]]:
        """What is to be called now that the reply was written; for the server."""
        callbacks, self._afterwards = self._afterwards, []
        return callbacks


Handler = Callable[..., Any]
"""
What runs a command: called with a :class:`Call` and the arguments by keyword, dashes in their
names replaced by underscores. It returns the value to answer with, ``None`` for an empty object,
or a Deferred or a coroutine of it; or it raises :exc:`CommandError`.
"""

_H = TypeVar("_H", bound=Handler)


@attrs.frozen
class Kind:
    """
    A type of argument.

    :ivar name: what QEMU calls it.
    :ivar values: the only strings taken, for an enumeration.
    :ivar element: the type of an array's elements, ``None`` for any.
    """

    name: str
    values: tuple[str, ...] | None = None
    element: Kind | None = None

    def check(self, value: Any, where: str, enum_where: str) -> None:
        """
        Refuse a value of another type.

        :param where: the argument's name, for the text of an error.
        :param enum_where: the same for what an enumeration does not know.
        :raises CommandError: the value is not of this type.
        """
        if type(value) not in _TYPES[self.name] or (
            self.name == "integer" and not -(1 << 63) <= value < 1 << 63
        ):
            raise CommandError(f"Invalid parameter type for '{where}', expected: {self.name}")
        if self.values is not None and value not in self.values:
            raise CommandError(f"Parameter '{enum_where}' does not accept value '{value}'")
        if self.element is not None:
            for number, item in enumerate(value):
                # QEMU has no name for what is in an array, and prints the lack of one.
                self.element.check(item, f"{where}[{number}]", "null")


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
}
_KINDS: dict[Any, Kind] = {
    str: Kind("string"),
    int: Kind("integer"),
    bool: Kind("boolean"),
    float: Kind("number"),
    list: Kind("array"),
    dict: Kind("object"),
    Mapping: Kind("object"),
}


def kind_of(annotation: Any) -> Kind | None:
    """
    The type of argument that an annotation stands for.

    :param annotation: ``str``, ``int``, ``bool``, ``float``, ``dict``, ``Mapping``, ``list``, a
        ``Literal`` of strings, a list of one of these, or one of these or ``None``; ``Any`` or
        nothing for what is not checked.
    :returns: ``None`` for what is not checked.
    :raises TypeError: the annotation is none of these.
    """
    if annotation in (Any, object, inspect.Parameter.empty):
        return None
    if annotation in _KINDS:
        return _KINDS[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        # That an argument may be left out does not mean that it may be null.
        inner = [argument for argument in arguments if argument is not type(None)]
        if len(inner) == 1:
            return kind_of(inner[0])
    elif origin is Literal and all(isinstance(value, str) for value in arguments):
        return Kind("string", values=arguments)
    elif origin is list:
        return Kind("array", element=kind_of(arguments[0]))
    elif origin in _KINDS:
        return _KINDS[origin]
    raise TypeError(f"{annotation!r} is no type of argument")


@attrs.frozen
class Argument:
    """
    An argument that a command takes.

    :ivar name: on the wire.
    :ivar parameter: the handler's parameter.
    :ivar kind: its type, ``None`` where any will do.
    :ivar optional: whether it may be left out.
    """

    name: str
    parameter: str
    kind: Kind | None
    optional: bool


@attrs.frozen
class RegisteredCommand:
    """
    A command with its handler.

    :ivar name: the command's name.
    :ivar handler: what runs it.
    :ivar oob: whether it may be called out of band.
    :ivar arguments: what it takes, in the order in which they are checked; ``None`` where the
        handler takes the call alone and looks at the arguments itself.
    :ivar others: what else may be given, unchecked: ``None`` for nothing, or the name of the one
        parameter that no argument can mean.
    """

    name: str
    handler: Handler
    oob: bool
    arguments: tuple[Argument, ...] | None = None
    others: str | None = None

    @classmethod
    def of(cls, name: str, handler: Handler, oob: bool) -> RegisteredCommand:
        """
        A command from its handler's signature.

        :raises TypeError: the handler cannot be called as a :data:`Handler` is, or the type of a
            parameter is none that is known.
        """
        parameters = list(inspect.signature(handler).parameters.values())
        if not parameters or parameters[0].kind not in _POSITIONAL:
            raise TypeError(f"{name}: the handler's first parameter takes the call")
        call = parameters.pop(0)
        arguments: list[Argument] = []
        others = None
        for parameter in parameters:
            if parameter.kind is parameter.VAR_KEYWORD:
                others = "" if call.kind is call.POSITIONAL_ONLY else call.name
            elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
                raise TypeError(f"{name}: {parameter.name} cannot be given by keyword")
            else:
                arguments.append(_argument(name, handler, parameter))
        return cls(name, handler, oob, tuple(arguments), others)

    def bind(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """
        The arguments by the names of the handler's parameters.

        :param given: by their names on the wire.
        :raises CommandError: one is missing, of the wrong type or unexpected; the first that QEMU
            would find, but for several that are unexpected.
        """
        bound: dict[str, Any] = {}
        if self.arguments is None:
            return bound
        for argument in self.arguments:
            if argument.name in given:
                value = given[argument.name]
                if argument.kind is not None:
                    argument.kind.check(value, argument.name, argument.name)
                bound[argument.parameter] = value
            elif not argument.optional:
                raise CommandError(f"Parameter '{argument.name}' is missing")
        if len(bound) < len(given):
            known = {argument.name for argument in self.arguments}
            for name, value in given.items():
                if name not in known:
                    parameter = name.replace("-", "_")
                    if self.others in (None, parameter) or parameter in bound:
                        raise CommandError(f"Parameter '{name}' is unexpected")
                    bound[parameter] = value
        return bound


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _argument(command: str, handler: Handler, parameter: inspect.Parameter) -> Argument:
    function = inspect.unwrap(handler)
    if isinstance(function, functools.partial):
        function = function.func
    if not hasattr(function, "__globals__"):
        function = getattr(function, "__func__", type(function).__call__)
    try:
        # One by one: the type of the call itself may well be known to type checkers only.
        annotation = typing.get_type_hints(
            types.SimpleNamespace(__annotations__={"it": parameter.annotation}),
            getattr(function, "__globals__", {}),
        )["it"]
        kind = kind_of(annotation)
    except (NameError, TypeError) as error:
        raise TypeError(f"{command}: {parameter.name}: {error}") from error
    return Argument(
        # A trailing underscore makes a name of a Python keyword.
        parameter.name.removesuffix("_").replace("_", "-"),
        parameter.name,
        kind,
        parameter.default is not parameter.empty,
    )


class CommandTable:
    """
    Commands by name.

    :ivar fallback: runs the commands that nobody registered, unchecked, if there is such a
        handler: called with the :class:`Call` alone.
    :ivar fallback_oob: tells of a name whether the fallback runs it out of band.
    """

    def __init__(self) -> None:
        self._commands: dict[str, RegisteredCommand] = {}
        self.fallback: Callable[[Call], Any] | None = None
        self.fallback_oob: Callable[[str], bool] = lambda _: False

    def __iter__(self) -> Iterator[RegisteredCommand]:
        return iter(tuple(self._commands.values()))

    def register(self, name: str, handler: Handler, *, oob: bool = False) -> None:
        """
        Add a command; one of the same name is replaced.

        :param name: its name.
        :param handler: what runs it, a :data:`Handler`.
        :param oob: whether it may be called out of band.
        :raises TypeError: the handler's signature does not fit.
        """
        self._commands[name] = RegisteredCommand.of(name, handler, oob)

    def command(self, name: str, *, oob: bool = False) -> Callable[[_H], _H]:
        """:meth:`register` as a decorator."""

        def decorate(handler: _H) -> _H:
            self.register(name, handler, oob=oob)
            return handler

        return decorate

    def unregister(self, name: str) -> None:
        """
        Take a command out.

        :raises KeyError: there is none of this name.
        """
        del self._commands[name]

    def find(self, name: str) -> RegisteredCommand | None:
        """The command of this name, or ``None``."""
        command = self._commands.get(name)
        if command is None and self.fallback is not None:
            command = RegisteredCommand(name, self.fallback, self.fallback_oob(name))
        return command
