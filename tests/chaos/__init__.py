"""Is the promise kept when everything fails? ``python tests/chaos`` tries it, and counts.

The promise of ``qmp-monitor``: *at least once from the moment an event is committed to the spool;
in order per sink; every hole is itself an event.*

A host full of simulated VMs (:mod:`~chaos.vms`) raises events. The daemon, a process as operators
run it, hands them to a file, to two webhooks and to a quorum queue of a real RabbitMQ. It is killed
(SIGKILL) at random moments and started again at once; the receiver of the webhooks
(:mod:`~chaos.receiver`) fails in every way it can; the broker is killed and comes back. Then all
calms down, the daemon delivers what is left, and everything that was raised, committed and received
is compared (:mod:`~chaos.check`): one event that is missing, or comes twice with different bytes,
or out of order, or a hole that nobody told of, is a failure.

What is random is drawn from one seed, but for the moment at which each process gets the processor.
"""
