"""Look at the dead letters of sinks, have them tried again, or drop them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any

from txqmp.monitor.commands import place, show
from txqmp.monitor.commands.asking import Ask, change
from txqmp.monitor.commands.errors import CommandFailedError, WrongUsageError
from txqmp.monitor.commands.replay import state_of
from txqmp.monitor.outgoing import outgoing
from txqmp.monitor.spool import DeadLetter, Reader
from txqmp.monitor.statedir import spool_directory


MAX_REASON = 80
"""How many characters of a reason are shown in a list."""

_PAGE = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What may be given."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="show them, the oldest first")
    place.add_options(listing)
    listing.add_argument("--sink", metavar="NAME", help="only of this sink")
    listing.add_argument("--json", action="store_true", help="a line of JSON for each")
    showing = actions.add_parser("show", help="show one, with its event")
    place.add_options(showing)
    showing.add_argument("number", type=_number, metavar="NUMBER", help="as in the list")
    showing.add_argument("--json", action="store_true", help="as a line of JSON")
    for name, text in (("retry", "have the sink try again"), ("drop", "forget them")):
        changing = actions.add_parser(name, help=text)
        place.add_options(changing)
        changing.add_argument("--sink", required=True, metavar="NAME", help="of this sink")
        changing.add_argument("--all", action="store_true", help="all that it has")
        changing.add_argument(
            "numbers", type=_number, nargs="*", metavar="NUMBER", help="as in the list"
        )
        changing.add_argument("--json", action="store_true", help="as JSON, for programs")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 1 << 63):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of a dead letter")
    return int(text)


def run(arguments: argparse.Namespace, ask: Ask) -> int:
    """
    Do it.

    :raises WrongUsageError: it is not said which.
    :raises CommandFailedError: there are no such.
    :raises SpoolError: the spool cannot be read or changed.
    """
    state = place.state_directory(arguments)
    if arguments.action in ("retry", "drop"):
        return _change(arguments, ask, state)
    with Reader(spool_directory(state)) as reader:
        if arguments.action == "show":
            return _show(reader, arguments)
        return _list(reader, arguments)


def _letters(reader: Reader, sink: str | None) -> Iterator[DeadLetter]:
    after = 0
    while page := reader.dead(sink, after=after, count=_PAGE):
        yield from page
        after = page[-1].number


def _list(reader: Reader, arguments: argparse.Namespace) -> int:
    if arguments.sink is not None:
        state_of(reader, arguments.sink)
    if arguments.json:
        for letter in _letters(reader, arguments.sink):
            show.say_json(_members(letter))
        return 0
    head = ("NUMBER", "SINK", "GIVEN UP", "TRIED", "VM", "EVENT", "REASON")
    rows = [
        (
            str(letter.number),
            show.harmless(letter.sink),
            short_state(letter),
            str(letter.attempts),
            show.harmless(letter.record.vm, 40),
            show.harmless(letter.record.type, 40),
            show.harmless(letter.reason, MAX_REASON),
        )
        for letter in _letters(reader, arguments.sink)
    ]
    if rows:
        show.table(head, rows)
    else:
        show.say("there are no dead letters")
    return 0


def short_state(letter: DeadLetter) -> str:
    """When it was given up, and whether it is to be tried again."""
    again = ", again" if letter.retrying else ""
    return f"{show.short_moment(letter.time)}{again}"


def _show(reader: Reader, arguments: argparse.Namespace) -> int:
    found = reader.dead(after=arguments.number - 1, count=1)
    if not found or found[0].number != arguments.number:
        raise CommandFailedError(f"there is no dead letter {arguments.number}")
    (letter,) = found
    event = _event(letter)
    if arguments.json:
        show.say_json({**_members(letter), "cloudevent": event})
        return 0
    for name, value in (
        ("number", str(letter.number)),
        ("sink", letter.sink),
        ("given up", short_state(letter)),
        ("tried", str(letter.attempts)),
        ("reason", letter.reason),
    ):
        show.say(f"{name + ':':<10}{show.harmless(value, 2000)}")
    show.say("")
    show.say_json(event, indent=2)
    return 0


def _event(letter: DeadLetter) -> Any:
    """
    The event as sinks send it.

    :raises CommandFailedError: the record is no event.
    """
    try:
        return json.loads(outgoing(letter.record).text)
    except (RecursionError, ValueError) as problem:
        raise CommandFailedError(f"dead letter {letter.number} cannot be read") from problem


def _members(letter: DeadLetter) -> dict[str, Any]:
    return {
        "number": letter.number,
        "sink": letter.sink,
        "time": show.moment(letter.time),
        "attempts": letter.attempts,
        "reason": letter.reason,
        "retrying": letter.retrying,
        "id": letter.record.id,
        "position": letter.record.position,
        "vm": letter.record.vm,
        "event": letter.record.type,
        "recorded": show.moment(letter.record.time),
    }


def _change(arguments: argparse.Namespace, ask: Ask, state: str) -> int:
    action, sink, numbers = arguments.action, arguments.sink, arguments.numbers
    if bool(numbers) is arguments.all:
        raise WrongUsageError(f"dead {action}: name either numbers or --all")
    which = None if arguments.all else sorted(set(numbers))
    asked: dict[str, Any] = {"sink": sink} if which is None else {"sink": sink, "numbers": which}
    count = change(
        ask,
        state,
        f"{action}-dead",
        asked,
        lambda control: getattr(control, f"{action}_dead")(sink, which),
    )
    if arguments.json:
        show.say_json({"sink": sink, "count": count})
    else:
        what = show.counted(count, "dead letter")
        done = "tried again" if action == "retry" else "dropped"
        show.say(f"{show.harmless(sink)}: {what} {'is' if count == 1 else 'are'} {done}")
    if which is not None and count < len(which):
        raise CommandFailedError(f"{len(which) - count} of the {len(which)} named are not there")
    return 0
