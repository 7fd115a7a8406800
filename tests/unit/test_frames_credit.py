"""Credit: nobody sends more than was granted, and nobody waits for ever."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.frames import Pair, frames_in, linked
from txqmp.frames import (
    Action,
    CancelCommand,
    ClientReactor,
    Code,
    Failed,
    FrameProtocolError,
    FrameSource,
    FrameUsageError,
    Limits,
    OutputStream,
    RequestCancelled,
    Response,
    ResponseData,
    ResponseWriter,
    RunCommand,
    ServerReactor,
    encode_frame,
)
from txqmp.frames.codec import (
    BYTES_RESPONSE,
    COMMAND_DATA,
    COMMAND_NAME,
    CONTINUATION,
    EOS,
    HAVE_DATA,
    NAME_EOS,
)
from txqmp.frames.credit import CONNECTION, ReceiveCredit, SendCredit


def source(request_id: int) -> FrameSource:
    return FrameSource(OutputStream(2), request_id, open=True)


def pair_of(
    client: dict[str, Any] | None = None,
    server: dict[str, Any] | None = None,
    rng: Random | None = None,
) -> Pair:
    """A pair with a link, and limits of its own on each side."""
    pair = linked(
        ClientReactor(limits=Limits(**(client or {}))),
        ServerReactor(limits=Limits(**(server or {})), link=True),
    )
    pair.rng = rng
    return pair


def responses(pair: Pair, data: bytes) -> None:
    """Have the server answer whatever comes with the same."""

    def answer(action: Action) -> None:
        if isinstance(action, RunCommand):
            pair.server.do([pair.server.reactor.respond(action.request_id, data)])

    pair.server.then = answer


def stalled(pair: Pair) -> int:
    """How many answers of the server wait for credit."""
    credit = pair.server.reactor._send_credit
    assert credit is not None
    return credit.stalled


# What may be sent


def test_a_request_may_send_its_window_and_no_more() -> None:
    credit, one = SendCredit(100, 1000), source(1)
    assert [credit.spend(one, 50), credit.spend(one, 50)] == [50, 50]
    assert (credit.room(1), credit.room(3)) == (0, 100)
    assert credit.spend(one, 1) == 0
    assert (credit.stalled, len(credit)) == (1, 1)


def test_all_together_may_send_the_connections_window() -> None:
    credit = SendCredit(100, 150)
    assert credit.spend(source(1), 50) == credit.spend(source(3), 50) == 50
    assert credit.spend(source(1), 50) == 50
    assert credit.room(3) == 0
    assert credit.spend(source(5), 1) == 0


def test_half_of_the_smaller_window_is_sent_at_a_time() -> None:
    assert SendCredit(100, 1000).spend(source(1), 80) == 50
    assert SendCredit(1000, 101).spend(source(1), 80) == 50
    assert SendCredit(1, 1000).spend(source(1), 80) == 1


def test_who_waits_is_woken_by_a_grant() -> None:
    credit, woken = SendCredit(2, 100), []
    one, other = source(1), source(3)
    for each in (one, other):
        each.wake = woken.append
        credit.spend(each, 1)
        credit.spend(each, 1)
        assert credit.spend(each, 1) == 0
    credit.grant(1, 4)
    assert (woken, credit.stalled) == ([one], 1)
    assert credit.spend(one, 1) == 1
    assert credit.spend(one, 1) == 1
    assert credit.spend(one, 1) == 0
    credit.grant(CONNECTION, 200)
    assert woken == [one, other, one]
    assert credit.stalled == 0


def test_who_has_nobody_to_wake_it_is_not_woken() -> None:
    credit, one = SendCredit(2, 100), source(1)
    credit.spend(one, 1)
    credit.spend(one, 1)
    credit.spend(one, 1)
    credit.grant(1, 10)
    assert credit.stalled == 0
    assert credit.spend(one, 1) == 1


@pytest.mark.parametrize("request_id", [CONNECTION, 1])
def test_a_grant_that_comes_twice_or_late_changes_nothing(request_id: int) -> None:
    credit, one = SendCredit(10, 10), source(1)
    credit.spend(one, 5)
    credit.grant(CONNECTION, 1000)
    credit.grant(1, 1000)
    before = credit.room(1)
    for offset in (1000, 999, 10, 0):
        credit.grant(request_id, offset)
    assert credit.room(1) == before == 995


def test_a_grant_for_who_has_sent_nothing_is_not_kept() -> None:
    credit = SendCredit(10, 100)
    for request_id in range(1, 10_000, 2):
        credit.grant(request_id, 1000)
    assert len(credit) == 0
    assert credit.room(1) == 10


def test_a_request_that_is_over_is_forgotten() -> None:
    credit, one = SendCredit(10, 100), source(1)
    one.wake = lambda source: pytest.fail("it is over")
    credit.spend(one, 5)
    credit.spend(one, 5)
    credit.grant(1, 12)
    credit.spend(one, 2)
    assert credit.spend(one, 5) == 0
    credit.forget(1)
    credit.forget(1)
    assert (len(credit), credit.stalled, credit.room(1)) == (0, 0, 10)
    credit.grant(1, 1000)
    credit.grant(CONNECTION, 1000)
    assert credit.room(1) == 10


# What may come


def test_more_is_granted_when_half_was_dealt_with() -> None:
    credit = ReceiveCredit(100, 1000)
    credit.receive(1, 100)
    assert credit.consume(1, 49) == []
    assert credit.consume(1, 1) == [(1, 150)]
    assert credit.consume(1, 50) == [(1, 200)]
    assert credit.held == 0


def test_the_connection_is_granted_more_of_its_own() -> None:
    credit = ReceiveCredit(100, 150)
    credit.receive(1, 50)
    credit.receive(3, 100)
    assert credit.held == 150
    assert credit.consume(1, 50) == [(1, 150)]
    assert credit.consume(3, 25) == [(CONNECTION, 225)]


def test_more_than_was_granted_is_an_error() -> None:
    for window, connection_window in ((10, 100), (100, 10)):
        credit = ReceiveCredit(window, connection_window)
        credit.receive(1, 10)
        with pytest.raises(FrameProtocolError) as caught:
            credit.receive(1, 1)
        assert caught.value.code is Code.CREDIT_EXCEEDED


def test_only_what_came_can_be_dealt_with() -> None:
    credit = ReceiveCredit(100, 100)
    assert credit.consume(1, 100) == []
    credit.receive(1, 60)
    assert credit.consume(1, 0) == credit.consume(1, -5) == []
    assert credit.consume(1, 1000) == [(1, 160), (CONNECTION, 160)]
    assert credit.consume(1, 1000) == []


def test_what_a_request_left_is_dealt_with_when_it_is_over() -> None:
    credit = ReceiveCredit(100, 100)
    credit.receive(1, 60)
    assert credit.forget(1) == [(CONNECTION, 160)]
    assert credit.forget(1) == credit.consume(1, 60) == []
    assert (len(credit), credit.held) == (0, 0)
    credit.receive(1, 100)


def test_nothing_costs_nothing() -> None:
    credit = ReceiveCredit(2, 2)
    for request_id in range(1000):
        credit.receive(request_id, 0)
    assert len(credit) == 0


@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 1 << 32))
def test_who_has_dealt_with_all_that_came_has_granted_enough(
    window: int, connection_window: int, seed: int
) -> None:
    """What a sender wants at a time always fits, so it never waits for one who waits for it."""
    rng = Random(seed)
    sending = SendCredit(window, connection_window)
    receiving = ReceiveCredit(window, connection_window)
    for _ in range(100):
        one = source(rng.choice([1, 3, 5]))
        size = sending.spend(one, rng.randint(1, 100))
        assert size > 0
        receiving.receive(one.request_id, size)
        for grant in receiving.consume(one.request_id, size):
            sending.grant(*grant)


# Between two sides


def test_a_whole_response_larger_than_the_window_arrives() -> None:
    pair = pair_of(client={"window": 1000, "connection_window": 2000})
    data = bytes(range(256)) * 400
    responses(pair, data)
    ids = [pair.request() for _ in range(5)]
    pair.run()
    came = [action for action in pair.client.take() if isinstance(action, Response)]
    assert sorted(action.request_id for action in came) == ids
    assert {action.data for action in came} == {data}
    pair.unbroken()


def test_data_larger_than_the_window_arrive() -> None:
    pair = pair_of(server={"window": 1000, "connection_window": 2000})
    data = bytes(range(256)) * 400
    ids = [pair.request(data=data) for _ in range(5)]
    pair.run()
    runs = [action for action in pair.server.take() if isinstance(action, RunCommand)]
    assert sorted(run.request_id for run in runs) == ids
    assert {run.data for run in runs} == {data}
    pair.unbroken()


@pytest.mark.parametrize("window", [2, 3, 5])
def test_tiny_windows_are_slow_but_not_still(window: int) -> None:
    limits = {"window": window, "connection_window": window}
    pair = pair_of(client=limits, server=limits)
    responses(pair, b"0123456789" * 3)
    ids = [pair.request(data=b"abcdefghij") for _ in range(3)]
    pair.run()
    came = [action for action in pair.client.take() if isinstance(action, Response)]
    assert sorted(action.request_id for action in came) == ids
    assert {action.data for action in came} == {b"0123456789" * 3}
    pair.unbroken()


def test_a_response_in_pieces_waits_until_it_was_dealt_with() -> None:
    pair = pair_of(client={"window": 1000, "connection_window": 10_000})
    responses(pair, bytes(3000))
    request_id = pair.request(whole=False)
    pair.run()
    came = pair.client.take()
    assert sum(len(a.data) for a in came if isinstance(a, ResponseData)) == 1000
    assert stalled(pair) == 1
    total = 1000
    while pair.client.reactor.active:
        pair.client.do(pair.client.reactor.consumed(request_id, 400))
        pair.run()
        total += sum(len(a.data) for a in pair.client.take() if isinstance(a, ResponseData))
        pair.unbroken()
    assert total == 3000
    assert stalled(pair) == 0


def test_who_reads_nothing_holds_up_itself_and_what_is_left_is_for_others() -> None:
    pair = pair_of(client={"window": 1000, "connection_window": 3000})
    responses(pair, bytes(5000))
    slow = pair.request(whole=False)
    pair.run()
    fast = pair.request()
    pair.run()
    assert pair.client.take()[-1] == Response(fast, bytes(5000))
    assert pair.client.reactor.active == {slow}


def test_the_connections_window_is_shared() -> None:
    pair = pair_of(client={"window": 1000, "connection_window": 2000})
    responses(pair, bytes(5000))
    slow = [pair.request(whole=False) for _ in range(2)]
    pair.run()
    other = pair.request()
    pair.run()
    pair.client.take()
    received = pair.client.reactor._receive_credit
    assert received is not None
    assert received.held == 2000
    assert stalled(pair) == 3
    # One that is over gives back what it held.
    pair.cancel(slow[0])
    pair.run()
    assert pair.client.take() == [RequestCancelled(slow[0]), Response(other, bytes(5000))]
    assert pair.client.reactor.active == {slow[1]}


def test_a_request_that_is_cancelled_while_it_waits_is_over() -> None:
    pair = pair_of(client={"window": 1000, "connection_window": 1000})
    responses(pair, bytes(5000))
    request_id = pair.request(whole=False)
    pair.run()
    pair.client.take()
    pair.cancel(request_id)
    pair.run()
    assert pair.client.take() == [RequestCancelled(request_id, may_have_run=True)]
    assert CancelCommand(request_id, answered=True) in pair.server.take()
    assert stalled(pair) == 0
    assert pair.server.reactor.active == set()
    # And the connection's window is whole again.
    request_id = pair.request()
    pair.run()
    assert pair.client.take() == [Response(request_id, bytes(5000))]
    pair.unbroken()


def test_an_upload_that_is_cancelled_while_it_waits_is_over() -> None:
    pair = pair_of(server={"window": 1000, "connection_window": 1000})
    request_id = pair.request(data=bytes(5000))
    while not pair.server.reactor.half_received:
        pair.carry(pair.client, pair.client.send(1))
    # Frames go, grants do not come.
    for _ in range(10):
        pair.carry(pair.client, pair.client.send())
    credit = pair.client.reactor._send_credit
    assert credit is not None
    assert credit.stalled == 1
    pair.cancel(request_id)
    assert credit.stalled == 1
    pair.run()
    assert pair.client.take() == [RequestCancelled(request_id, may_have_run=False)]
    assert (credit.stalled, len(credit)) == (0, 0)
    assert pair.server.reactor.half_received == set()
    assert pair.request(data=bytes(5000))
    pair.run()
    assert isinstance(pair.server.take()[-1], RunCommand)
    pair.unbroken()


def test_errors_and_text_and_the_link_itself_need_no_credit() -> None:
    pair = pair_of(client={"window": 2, "connection_window": 2})
    responses(pair, bytes(10))
    pair.request(whole=False)
    pair.run()
    assert stalled(pair) == 1
    pair.server.then = lambda action: None
    request_id = pair.request()
    pair.run()
    pair.server.do([pair.server.reactor.respond_error(request_id, "no")])
    pair.client.do([pair.client.reactor.ping(b"p")])
    pair.run()
    assert {type(action).__name__ for action in pair.client.take()} == {
        "ResponseData",
        "RequestFailed",
        "Pong",
    }


def linked_server(**limits: Any) -> ServerReactor:
    pair = pair_of(server=limits)
    return pair.server.reactor


def test_a_client_that_goes_over_its_credit_is_cut_off() -> None:
    server = linked_server(window=100, connection_window=1000)
    server.receive(encode_frame(3, 1, 0, COMMAND_NAME, HAVE_DATA, b"c"))
    # What has come is dealt with at once, so it takes one frame that is too large.
    for _ in range(10):
        server.receive(encode_frame(3, 1, 0, COMMAND_DATA, CONTINUATION, bytes(100)))
    assert server.error is None
    (failed,) = server.receive(encode_frame(3, 1, 0, COMMAND_DATA, CONTINUATION, bytes(101)))
    assert isinstance(failed, Failed)
    assert failed.error.code is Code.CREDIT_EXCEEDED


def test_a_server_that_goes_over_its_credit_is_cut_off() -> None:
    pair = pair_of(client={"window": 100, "connection_window": 1000})
    request_id = pair.request(whole=False)
    pair.run()
    client = pair.client.reactor
    frame = encode_frame(request_id, 2, 0, BYTES_RESPONSE, CONTINUATION, bytes(50))
    assert len(client.receive(frame)) == len(client.receive(frame)) == 1
    (failed,) = client.receive(encode_frame(request_id, 2, 0, BYTES_RESPONSE, EOS, b"x"))
    assert isinstance(failed, Failed)
    assert failed.error.code is Code.CREDIT_EXCEEDED


def test_late_grants_and_grants_for_what_is_over_mean_nothing() -> None:
    pair = pair_of()
    request_id = pair.request()
    pair.run()
    server = pair.server.reactor
    for line in (b"3:999999", b"0:1", b"5:7 3:1 0:0", b"", b"65535:1 70000:1"):
        name = b"link-credit " + line
        data = encode_frame(101, 1, 0, COMMAND_NAME, NAME_EOS, name)
        (action,) = server.receive(data)
        assert not isinstance(action, Failed)
        pair.server.do([action])
        pair.server.send()
    credit = server._send_credit
    assert credit is not None
    assert len(credit) == 0
    assert credit.room(request_id) == 256 << 10


def test_an_id_that_is_used_again_begins_with_a_window_of_its_own() -> None:
    pair = pair_of(
        client={"window": 1000, "connection_window": 1 << 20},
        server={"window": 1000, "connection_window": 1 << 20},
    )
    responses(pair, bytes(3000))
    client = pair.client.reactor
    for _ in range(3):
        client._ids._next = 101
        assert pair.request(data=bytes(3000)) == 101
        pair.run()
        assert Response(101, bytes(3000)) in pair.client.take()
    pair.unbroken()
    for reactor in (client, pair.server.reactor):
        assert reactor._send_credit is not None
        assert reactor._receive_credit is not None
        assert len(reactor._send_credit) == len(reactor._receive_credit) == 0


def test_grants_that_cannot_be_sent_do_not_pile_up() -> None:
    """A client that sends, and reads nothing, has each grant take the place of the one before."""
    pair = pair_of(server={"window": 2, "connection_window": 2})
    server = pair.server.reactor
    for request_id in range(3, 403, 2):
        actions = server.receive(encode_frame(request_id, 1, 0, COMMAND_NAME, HAVE_DATA, b"c"))
        for _ in range(20):
            frame = encode_frame(request_id, 1, 0, COMMAND_DATA, CONTINUATION, b"x")
            actions += server.receive(frame)
        assert actions == []
        (run,) = server.receive(encode_frame(request_id, 1, 0, COMMAND_DATA, EOS, b""))
        assert isinstance(run, RunCommand)
    assert server._link is not None
    assert server._link.lines is not None
    assert not server._link.lines._later
    (line,) = frames_in(pair.server.send())
    assert line.payload == b"credit 0:%d\n" % (200 * 20 + 2)
    # What is granted later is told later.
    server.receive(encode_frame(1001, 1, 0, COMMAND_NAME, HAVE_DATA, b"c"))
    server.receive(encode_frame(1001, 1, 0, COMMAND_DATA, CONTINUATION, b"x"))
    (line,) = frames_in(pair.server.send())
    assert line.payload == b"credit 1001:3 0:4003\n"


def test_grants_of_a_client_wait_for_their_turn_and_are_sent_together() -> None:
    """Each is a request, with an id of its own."""
    pair = pair_of(client={"window": 2, "connection_window": 1 << 20, "active": 200})
    writers: dict[int, ResponseWriter] = {}

    def answer(action: Action) -> None:
        if isinstance(action, RunCommand):
            writer, frames = pair.server.reactor.open_response(action.request_id)
            writers[action.request_id] = writer
            pair.server.do([frames])

    pair.server.then = answer
    for _ in range(200):
        pair.request()
    pair.run()
    for writer in writers.values():
        writer.write(b"xx")
    pair.carry(pair.server, pair.server.send())
    asked = frames_in(pair.client.send())
    lines = [frame.payload for frame in asked if frame.type == COMMAND_NAME]
    # The first was made when the first grant was to be told; it tells of all that were since.
    assert len(lines) == 1
    assert len(lines[0].split()) == 1 + 32
    assert len(pair.client.reactor._link.requests) == 2
    pair.carry(pair.client, b"".join(frame.encode() for frame in asked))
    pair.run()
    for writer in writers.values():
        writer.write(b"xxxx")
        writer.finish()
    pair.run()
    came = [action for action in pair.client.take() if isinstance(action, Response)]
    assert {action.data for action in came} == {b"xxxxxx"}
    assert len(came) == 200
    pair.unbroken()


def test_what_is_over_before_its_grant_is_told_is_granted_nothing() -> None:
    pair = pair_of(client={"window": 10, "connection_window": 20})
    request_id = pair.request()
    pair.run()
    pair.server.do([pair.server.reactor.respond(request_id, bytes(10))])
    pair.carry(pair.server, pair.server.send())
    assert pair.client.take() == [Response(request_id, bytes(10))]
    (said,) = frames_in(pair.client.send())
    assert said.payload == b"link-credit 0:30"


# Random schedules


class Watched(Pair):
    """A pair whose wire is watched: who sends what, and what was granted before."""

    def __init__(self, rng: Random, client: Limits, server: Limits) -> None:
        super().__init__(
            ClientReactor(limits=client), ServerReactor(limits=server, link=True), rng=rng
        )
        self.windows = {
            BYTES_RESPONSE: (client.window, client.connection_window),
            COMMAND_DATA: (server.window, server.connection_window),
        }
        self.granted: dict[tuple[int, int], int] = {}
        self.sent_bytes: Counter[tuple[int, int]] = Counter()
        self.link: int | None = None

    def watch(self, data: bytes) -> None:
        """Look at what one side sends, when the other gets it."""
        for frame in frames_in(data):
            kind, payload = frame.type, frame.payload
            if kind == COMMAND_NAME and payload.startswith(b"link-credit"):
                self.grant(BYTES_RESPONSE, payload.split()[1:])
            elif kind == COMMAND_NAME:
                self.forget(frame.request_id)
            elif kind == BYTES_RESPONSE and payload.startswith(b"credit "):
                for line in payload.splitlines():
                    self.grant(COMMAND_DATA, line.split()[1:])
            elif kind in self.windows and not payload.startswith((b"link 1", b"ping")):
                self.count(kind, frame.request_id, len(payload))

    def forget(self, request_id: int) -> None:
        for kind in self.windows:
            self.sent_bytes.pop((kind, request_id), None)
            self.granted.pop((kind, request_id), None)

    def grant(self, kind: int, words: list[bytes]) -> None:
        for word in words:
            request_id, offset = map(int, word.split(b":"))
            self.granted[kind, request_id] = offset

    def count(self, kind: int, request_id: int, size: int) -> None:
        for which, window in zip((request_id, CONNECTION), self.windows[kind], strict=True):
            self.sent_bytes[kind, which] += size
            assert self.sent_bytes[kind, which] <= self.granted.get((kind, which), window)


WINDOWS = st.sampled_from([2, 3, 7, 50, 1000])


@given(WINDOWS, WINDOWS, WINDOWS, WINDOWS, st.integers(0, 1 << 32))
def test_random_schedules_come_to_an_end_and_never_go_over_the_window(
    window: int, connection_window: int, other: int, other_connection: int, seed: int
) -> None:
    rng = Random(seed)
    pair = Watched(
        rng,
        Limits(window=window, connection_window=connection_window),
        Limits(
            window=other,
            connection_window=other_connection,
            half_received=rng.choice([1, 2, 64]),
            half_received_bytes=rng.choice([310, 1000, 1 << 20]),
            active=rng.choice([5, 256]),
        ),
    )
    pair.open_link()
    client, server = pair.client, pair.server
    wanted: dict[int, bytes] = {}
    got: dict[int, bytes] = {}
    owed: Counter[int] = Counter()
    over: set[int] = set()
    cancelled: set[int] = set()
    todo: list[RunCommand] = []

    def at_client(action: Action) -> None:
        if isinstance(action, ResponseData):
            got[action.request_id] = got.get(action.request_id, b"") + action.data
            owed[action.request_id] += len(action.data)
            if action.last:
                over.add(action.request_id)
        elif isinstance(action, Response):
            got[action.request_id] = action.data
            over.add(action.request_id)
        else:
            assert isinstance(action, RequestCancelled)
            assert action.request_id in cancelled
            over.add(action.request_id)

    def at_server(action: Action) -> None:
        if isinstance(action, RunCommand):
            assert action.data in (None, wanted[action.request_id])
            todo.append(action)
        else:
            assert isinstance(action, CancelCommand)

    def answer(command: RunCommand) -> None:
        data = wanted[command.request_id]
        if rng.random() < 0.5:
            server.do([server.reactor.respond(command.request_id, data)])
            return
        writer, frames = server.reactor.open_response(command.request_id)
        server.do([frames])
        half = len(data) // 2
        writer.write(data[:half])
        writer.write(data[half:])
        writer.finish()

    client.then, server.then = at_client, at_server
    wires: dict[str, list[bytes]] = {"there": [], "back": []}

    def step(what: int) -> None:
        if what == 0 and len(wanted) < 8 and len(client.reactor.active) < 5:
            data = rng.randbytes(rng.choice([0, 1, 10, 100, 300]))
            options: dict[str, Any] = {"whole": rng.random() < 0.5}
            if rng.random() < 0.5:
                options["data"] = data
            wanted[pair.request(**options)] = data
        elif what == 1 and todo:
            answer(todo.pop(rng.randrange(len(todo))))
        elif what == 2 and owed:
            request_id = rng.choice(list(owed))
            size = rng.randint(1, owed[request_id]) if owed[request_id] else 0
            owed[request_id] -= size
            client.do(client.reactor.consumed(request_id, size))
        elif what == 3 and rng.random() < 0.2 and client.reactor.active - cancelled:
            request_id = rng.choice(sorted(client.reactor.active - cancelled))
            cancelled.add(request_id)
            pair.cancel(request_id)
        elif what in (4, 5):
            end, name = (client, "there") if what == 4 else (server, "back")
            wires[name].append(end.send(rng.choice([1, 100, 5000])))
        elif what in (6, 7):
            name, other_end = ("there", server) if what == 6 else ("back", client)
            data, wires[name] = b"".join(wires[name]), []
            pair.watch(data)
            for piece in pair.cut(data):
                other_end.receive(piece)

    for _ in range(rng.randint(10, 200)):
        step(rng.randrange(8))
        pair.unbroken()
    for _ in range(20_000):
        if not client.reactor.active and len(wanted) == len(over):
            break
        for what in (1, 2, 4, 6, 5, 7):
            step(what)
        pair.unbroken()
    assert over == set(wanted)
    for request_id, data in wanted.items():
        if request_id not in cancelled:
            assert got[request_id] == data
    assert server.reactor.active == server.reactor.half_received == set()
    for end in (client, server):
        for name in ("there", "back"):
            wires[name].clear()
        assert end.reactor._send_credit is not None
        assert len(end.reactor._send_credit) == end.reactor._send_credit.stalled == 0
        assert end.reactor._receive_credit is not None
        assert len(end.reactor._receive_credit) == end.reactor._receive_credit.held == 0


def test_a_link_has_windows_of_two_bytes_at_least() -> None:
    for name in ("window", "connection_window"):
        with pytest.raises(ValueError):
            Limits(**{name: 1})  # type: ignore[arg-type]


def test_frames_too_small_for_a_link_are_refused_at_once() -> None:
    for name in ("send_frame", "receive_frame"):
        limits = Limits(**{name: 1023})  # type: ignore[arg-type]
        with pytest.raises(FrameUsageError, match="1024"):
            ServerReactor(limits=limits, link=True)
        client = ClientReactor(limits=limits)
        with pytest.raises(FrameUsageError, match="1024"):
            client.open_link()
        client.request("c")
