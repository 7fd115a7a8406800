"""What can be chosen for a session."""

from __future__ import annotations

import attrs

from txqmp.dispatch import DEFAULT_MAX_WAITING, DEFAULT_WINDOW
from txqmp.framing import DEFAULT_MAX_MESSAGE
from txqmp.timeouts import Timeouts


@attrs.frozen(kw_only=True)
class SessionSettings:
    """
    What can be chosen for a session.

    :ivar oob: enable out-of-band commands where the peer offers them.
    :ivar await_greeting: wait for a greeting; the guest agent sends none (fact G41).
    :ivar negotiate: send ``qmp_capabilities``; the guest agent knows none.
    :ivar strict: take messages with unknown members for malformed ones.
    :ivar window: how many in-band commands may be in flight (fact G22).
    :ivar max_waiting: how many more may wait for their turn.
    :ivar max_message: the largest message taken from the peer, in bytes.
    :ivar max_early_events: how many events are kept that come before the session runs (fact G8);
        older ones are dropped, and counted.
    :ivar timeouts: how long things may take.
    """

    oob: bool = True
    await_greeting: bool = True
    negotiate: bool = True
    strict: bool = False
    window: int = attrs.field(default=DEFAULT_WINDOW, validator=attrs.validators.ge(1))
    max_waiting: int = attrs.field(default=DEFAULT_MAX_WAITING, validator=attrs.validators.ge(0))
    max_message: int = attrs.field(default=DEFAULT_MAX_MESSAGE, validator=attrs.validators.ge(1))
    max_early_events: int = attrs.field(default=1000, validator=attrs.validators.ge(0))
    timeouts: Timeouts = attrs.field(factory=Timeouts)


DEFAULT_SETTINGS = SessionSettings()
"""What holds where nothing is chosen."""
