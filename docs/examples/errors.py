"""What each error says about the command: errors.py /run/vm1/qmp.sock"""

import sys

from twisted.internet.task import react

import txqmp


async def attempt(qmp, cmd, arguments=None, **options):
    """Execute a command, and say in words what became of it."""
    try:
        await qmp.execute(cmd, arguments, **options)
        return "done"
    except txqmp.ExecuteError as error:
        return f"QEMU refused: {error.error_class}: {error.desc}"
    except txqmp.ExecuteTimeoutError as error:
        return "too slow; " + ("may still run" if error.sent else "never sent")
    except txqmp.DisconnectedError as error:
        return "session lost; " + ("may have run" if error.may_have_run else "never sent")
    except txqmp.ProtocolError as error:
        return f"no sound answer; may have run: {error}"
    except txqmp.QMPError as error:
        return f"never sent: {error}"


async def main(reactor, where):
    try:
        qmp = await txqmp.connect(reactor, where)
    except txqmp.QMPError as error:
        sys.exit(f"no session: {error}")
    print(await attempt(qmp, "stop"))
    print(await attempt(qmp, "no-such-command"))
    print(await attempt(qmp, "stop", {"reason": float("nan")}))
    print(await attempt(qmp, "query-status", timeout=0))
    print(await attempt(qmp, "quit"))
    await qmp.when_state(txqmp.RunState.IDLE)
    print(await attempt(qmp, "query-status"))


react(main, sys.argv[1:])
