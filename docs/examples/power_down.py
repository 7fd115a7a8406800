"""A piece of a program that is to be tested: test_power_down.py has the tests."""

from twisted.internet.defer import TimeoutError


async def power_down(qmp, clock, patience=60):
    """
    Have the guest shut down, or end the VM if it does not in time.

    :returns: whether the guest did.
    """
    with qmp.listen("SHUTDOWN") as shutdown:
        await qmp.execute("system_powerdown")
        try:
            await shutdown.get().addTimeout(patience, clock)
            return True
        except TimeoutError:
            await qmp.execute("quit")
            return False
