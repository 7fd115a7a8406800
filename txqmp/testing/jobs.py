"""
Block jobs of a simulated VM, with the events of the real ones in the order of the real ones: some
come before the command returns that brings them about (fact G25).
"""

from __future__ import annotations

import re
from typing import Any, Literal

from twisted.internet.interfaces import IDelayedCall

from txqmp.server import QMPServerFactory
from txqmp.server.commands import Call, CommandError


JobType = Literal["mirror", "backup", "stream", "commit"]
"""The types of block jobs."""

_VERBS = {
    "cancel": ("created", "running", "paused", "ready", "standby", "waiting", "pending"),
    "pause": ("created", "running", "paused", "ready", "standby"),
    "resume": ("created", "running", "paused", "ready", "standby"),
    "set-speed": ("created", "running", "paused", "ready", "standby"),
    "complete": ("ready",),
    "finalize": ("pending",),
    "dismiss": ("concluded",),
}


class SimulatedJob:
    """
    A block job. Its methods make happen what its commands and its work make happen.

    :ivar id: its id.
    :ivar type: such as ``"mirror"``.
    :ivar status: such as ``"running"``, as ``query-jobs`` gives it.
    :ivar length: how many bytes there are to copy.
    :ivar offset: how many are copied.
    :ivar speed: as ``block-job-set-speed`` has set it; it means nothing.
    :ivar error: what went wrong, ``None`` for nothing.
    """

    def __init__(
        self,
        jobs: SimulatedJobs,
        kind: JobType,
        id: str,
        length: int,
        auto_finalize: bool,
        auto_dismiss: bool,
        nodes: tuple[str, ...] = (),
    ) -> None:
        self.id = id
        self.type = kind
        self.status = "undefined"
        self.length = length
        self.offset = 0
        self.speed = 0
        self.error: str | None = None
        self.auto_finalize = auto_finalize
        self.auto_dismiss = auto_dismiss
        self.nodes = nodes
        self._jobs = jobs
        self._timer: IDelayedCall | None = None
        self._left = 0.0

    def _enter(self, status: str) -> None:
        self.status = status
        self._jobs.server.send_event("JOB_STATUS_CHANGE", {"status": status, "id": self.id})

    def _tell(self, event: str, **more: str) -> None:
        data = {
            "device": self.id,
            "len": self.length,
            "offset": self.offset,
            "speed": self.speed,
            "type": self.type,
        }
        self._jobs.server.send_event(event, {**data, **more})

    def start(self, duration: float) -> None:
        """
        Begin to copy.

        :param duration: how long it takes, in seconds; 0 to be done at once, as with ``null-co``.
        """
        self._enter("created")
        self._enter("running")
        self._left = duration
        if duration > 0:
            self._work()
            return
        if self.type == "backup":
            # QEMU drains its target.
            self._enter("paused")
            self._enter("running")
        self.copied()

    def _work(self) -> None:
        self._timer = self._jobs.server.clock.callLater(self._left, self._worked)

    def _worked(self) -> None:
        self._timer = None
        self.copied()

    def _rest(self) -> None:
        """Copy no more, for now; what is done stays done."""
        timer, self._timer = self._timer, None
        if timer is not None:
            left = max(0.0, timer.getTime() - self._jobs.server.clock.seconds())
            self._left = left
            timer.cancel()

    def progress(self, offset: int) -> None:
        """So many bytes are copied. That makes no event; ``query-jobs`` tells it."""
        self.offset = offset

    def copied(self) -> None:
        """All is copied: a mirror is ready, another job is done."""
        self._rest()
        self.offset = self.length
        if self.type == "mirror":
            self._enter("ready")
            self._tell("BLOCK_JOB_READY")
        else:
            self.finish()

    def finish(self) -> None:
        """The work is done, or has failed: conclude, at once or when it is finalized."""
        self._enter("waiting")
        self._enter("pending")
        if self.auto_finalize:
            self.conclude()
        else:
            data = {"type": self.type, "id": self.id}
            self._jobs.server.send_event("BLOCK_JOB_PENDING", data)

    def fail(self, error: str) -> None:
        """The work has failed, with a text such as ``"Input/output error"``."""
        self._rest()
        self.error = error
        self._enter("aborting")
        self.conclude()

    def cancel(self) -> None:
        """The job is given up."""
        self._rest()
        self._enter("aborting")
        self._tell("BLOCK_JOB_CANCELLED")
        self._concluded()

    def conclude(self) -> None:
        """The job is over."""
        more = {} if self.error is None else {"error": self.error}
        self._tell("BLOCK_JOB_COMPLETED", **more)
        self._concluded()

    def _concluded(self) -> None:
        self._enter("concluded")
        if self.auto_dismiss:
            self.dismiss()

    def dismiss(self) -> None:
        """The job is forgotten."""
        self._jobs.by_id.pop(self.id, None)
        self._enter("null")

    def pause(self) -> None:
        """Copy no more until :meth:`resume`."""
        self._rest()
        self._enter("standby" if self.status == "ready" else "paused")

    def resume(self) -> None:
        """Go on after :meth:`pause`."""
        self._enter("ready" if self.status == "standby" else "running")
        if self.status == "running":
            self._work()

    @property
    def paused(self) -> bool:
        """Whether it was paused by a user."""
        return self.status in ("paused", "standby")

    def describe(self) -> dict[str, Any]:
        """As ``query-jobs`` gives it."""
        described = {
            "current-progress": self.offset,
            "status": self.status,
            "total-progress": self.length,
            "type": self.type,
            "id": self.id,
        }
        return described if self.error is None else {**described, "error": self.error}

    def describe_block_job(self) -> dict[str, Any]:
        """As ``query-block-jobs`` gives it."""
        described = {
            "auto-finalize": self.auto_finalize,
            "io-status": "ok",
            "device": self.id,
            "auto-dismiss": self.auto_dismiss,
            "busy": self.status == "running",
            "len": self.length,
            "offset": self.offset,
            "status": self.status,
            "paused": self.paused or (self.type, self.status) == ("mirror", "pending"),
            "speed": self.speed,
            "ready": self.status in ("ready", "standby"),
            "type": self.type,
        }
        return described if self.error is None else {**described, "error": self.error}


class SimulatedJobs:
    """
    The block nodes and jobs of a simulated VM, and their commands.

    :param server: where the commands are registered.

    :ivar by_id: the jobs by their ids.
    :ivar nodes: the sizes of the block nodes by name, as ``blockdev-add`` adds them.
    :ivar duration: how long the jobs take that commands begin, in seconds of the server's clock; 0
        for no time.
    """

    def __init__(self, server: QMPServerFactory) -> None:
        self.server = server
        self.by_id: dict[str, SimulatedJob] = {}
        self.nodes: dict[str, int] = {}
        self.duration = 0.0
        server.register("blockdev-add", self._blockdev_add)
        server.register("blockdev-del", self._blockdev_del)
        server.register("blockdev-mirror", self._blockdev_mirror)
        server.register("blockdev-backup", self._blockdev_backup)
        server.register("block-stream", self._block_stream)
        server.register("block-commit", self._block_commit)
        server.register("query-jobs", self._query_jobs)
        server.register("query-block-jobs", self._query_block_jobs)
        server.register("block-job-set-speed", self._set_speed)
        server.register("block-job-cancel", self._block_job_cancel)
        for verb in ("cancel", "complete", "finalize", "dismiss", "pause", "resume"):
            self._register_verb(verb)

    def start(
        self,
        kind: JobType,
        id: str,
        *,
        length: int = 1 << 20,
        duration: float | None = None,
        auto_finalize: bool = True,
        auto_dismiss: bool = True,
        nodes: tuple[str, ...] = (),
    ) -> SimulatedJob:
        """
        Begin a job.

        :param length: how many bytes there are to copy.
        :param duration: as for :meth:`SimulatedJob.start`; :attr:`duration` by default.
        :param nodes: the nodes that it keeps busy.
        :raises CommandError: the id is none, or in use.
        """
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*", id):
            raise CommandError(f"Invalid job ID '{id}'")
        if id in self.by_id:
            raise CommandError(f"Job ID '{id}' already in use")
        job = SimulatedJob(self, kind, id, length, auto_finalize, auto_dismiss, nodes)
        self.by_id[id] = job
        job.start(self.duration if duration is None else duration)
        return job

    def stop(self) -> None:
        """Forget all jobs, without a word: the VM has ended."""
        for job in self.by_id.values():
            job._rest()
        self.by_id.clear()

    # Nodes

    def _blockdev_add(
        self, call: Call, driver: str, node_name: str, size: int = 1 << 30, **_: Any
    ) -> None:
        if node_name in self.nodes:
            raise CommandError(f"Duplicate nodes with node-name='{node_name}'")
        self.nodes[node_name] = size

    def _blockdev_del(self, call: Call, node_name: str) -> None:
        if node_name not in self.nodes:
            raise CommandError(f"Failed to find node with node-name='{node_name}'")
        for job in self.by_id.values():
            if node_name in job.nodes:
                raise CommandError(
                    f"Node '{node_name}' is busy: block device is in use by block job: {job.type}"
                )
        del self.nodes[node_name]

    def _node(self, name: str) -> str:
        if name not in self.nodes:
            raise CommandError(f"Cannot find device='{name}' nor node-name='{name}'")
        return name

    # Jobs

    def _blockdev_mirror(
        self, call: Call, device: str, target: str, sync: str, job_id: str = "", **others: Any
    ) -> None:
        self._begin("mirror", job_id, (self._node(device), self._node(target)), others)

    def _blockdev_backup(
        self, call: Call, device: str, target: str, sync: str, job_id: str = "", **others: Any
    ) -> None:
        self._begin("backup", job_id, (self._node(device), self._node(target)), others)

    def _block_stream(self, call: Call, device: str, job_id: str = "", **others: Any) -> None:
        self._begin("stream", job_id, (self._node(device),), others)

    def _block_commit(self, call: Call, device: str, job_id: str = "", **others: Any) -> None:
        self._begin("commit", job_id, (self._node(device),), others)

    def _begin(
        self, kind: JobType, id: str, nodes: tuple[str, ...], others: dict[str, Any]
    ) -> None:
        self.start(
            kind,
            id,
            length=self.nodes[nodes[0]],
            auto_finalize=others.get("auto_finalize", True) is not False,
            auto_dismiss=others.get("auto_dismiss", True) is not False,
            nodes=nodes,
        )

    def _query_jobs(self, call: Call) -> list[dict[str, Any]]:
        return [job.describe() for job in self.by_id.values()]

    def _query_block_jobs(self, call: Call) -> list[dict[str, Any]]:
        return [job.describe_block_job() for job in self.by_id.values()]

    # What is done to jobs: by their ids, or by the older names of the same commands

    def _register_verb(self, verb: str) -> None:
        def by_id(call: Call, id: str) -> None:
            job = self.by_id.get(id)
            if job is None:
                raise CommandError("Job not found")
            self._do(call, job, verb)

        def by_device(call: Call, device: str) -> None:
            self._do(call, self._block_job(device), verb)

        self.server.register(f"job-{verb}", by_id)
        if verb != "cancel":
            self.server.register(f"block-job-{verb}", by_device)

    def _block_job(self, device: str) -> SimulatedJob:
        job = self.by_id.get(device)
        if job is None:
            raise CommandError(f"Block job '{device}' not found", "DeviceNotActive")
        return job

    def _block_job_cancel(self, call: Call, device: str, force: bool = False) -> None:
        job = self._block_job(device)
        if job.type == "mirror" and job.status == "ready" and not force:
            # It leaves a good copy, and is no failure.
            call.after_reply(job.finish)
        else:
            self._do(call, job, "cancel")

    def _set_speed(self, call: Call, device: str, speed: int) -> None:
        job = self._block_job(device)
        self._check(job, "set-speed")
        job.speed = speed

    @staticmethod
    def _check(job: SimulatedJob, verb: str) -> None:
        if job.status not in _VERBS[verb]:
            raise CommandError(
                f"Job '{job.id}' in state '{job.status}' cannot accept command verb '{verb}'"
            )

    def _do(self, call: Call, job: SimulatedJob, verb: str) -> None:
        self._check(job, verb)
        if verb == "complete":
            call.after_reply(job.finish)
        elif verb == "cancel" and job.status != "pending":
            call.after_reply(job.cancel)
        elif verb == "pause" and job.paused:
            raise CommandError("Job is already paused")
        elif verb == "resume" and not job.paused:
            raise CommandError("Can't resume a job that was not paused")
        else:
            act = {
                "cancel": job.cancel,
                "finalize": job.conclude,
                "dismiss": job.dismiss,
                "pause": job.pause,
                "resume": job.resume,
            }
            act[verb]()
