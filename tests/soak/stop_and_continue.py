"""A process of its own: stop and continue a VM without pause, as ``python … MONITOR_SOCKET``.

It prints a line when it has begun. On SIGTERM it prints how many events it has caused.
"""

from __future__ import annotations

import signal
import socket
import sys


#: How many pairs of commands are on their way at a time: without oob QEMU reads them as it can.
PAIRS = 16

ROUND = b'{"execute":"cont"}{"execute":"stop"}' * PAIRS


def main(path: str) -> None:
    ended = False

    def end(_: int, __: object) -> None:
        nonlocal ended
        ended = True

    signal.signal(signal.SIGTERM, end)
    caused = 0
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.connect(path)
        with monitor.makefile("rb") as lines:
            lines.readline()
            monitor.sendall(b'{"execute":"qmp_capabilities"}')
            lines.readline()
            sys.stdout.write("begun\n")
            sys.stdout.flush()
            while not ended:
                monitor.sendall(ROUND)
                answers = 0
                while answers < 2 * PAIRS:
                    if b'"event"' in lines.readline():
                        caused += 1
                    else:
                        answers += 1
    sys.stdout.write(f"{caused}\n")


if __name__ == "__main__":
    main(sys.argv[1])
