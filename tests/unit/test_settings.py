"""What can be chosen for a session, and what cannot."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from txqmp.settings import DEFAULT_SETTINGS, SessionSettings
from txqmp.timeouts import Timeouts


def test_the_defaults_are_those_of_the_specification() -> None:
    settings = SessionSettings()
    assert settings == DEFAULT_SETTINGS
    assert (settings.oob, settings.await_greeting, settings.negotiate) == (True, True, True)
    assert settings.strict is False
    assert settings.window == 8
    assert settings.max_message == 64 << 20
    assert settings.timeouts == Timeouts()


@pytest.mark.parametrize(
    "wrong", [{"window": 0}, {"max_waiting": -1}, {"max_message": 0}, {"max_early_events": -1}]
)
def test_a_bound_that_lets_nothing_through_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError):
        SessionSettings(**wrong)


def test_settings_are_frozen_and_can_be_varied() -> None:
    settings = SessionSettings(window=64)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        settings.window = 1  # type: ignore[misc]
    assert attrs.evolve(settings, oob=False) == SessionSettings(window=64, oob=False)
