"""
How fast is it? ``python tests/benchmarks`` measures txqmp against the asyncio library ``qemu.qmp``
and against the plainest possible limit, a blocking socket with ``orjson``. A bare Twisted protocol
beside them shows how much of the distance to the limit is ours, and how much is Twisted's.

Each side runs in a process of its own (:mod:`~benchmarks.worker`), against a replier that costs
less than what is measured (:mod:`~benchmarks.peers`). The sides take turns, so that whatever else
the machine does hurts them alike, and what counts is the ratio.
"""
