"""What is sent to the child for a batch: surroundings, blobs that it lacks, and the tasks that are left to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice

from overnight.config import INLINE_BYTES
from overnight.errors import InputLost, TaskError
from overnight.messages import RunContext
from overnight.store.records import MOST_LOST
from overnight_worker.batch import ClaimedBatch, Ended, Member, Stage
from overnight_worker.child_process import ChildProcess
from overnight_worker.frames import Kind, pack
from overnight_worker.inputs import Inputs, needed_by
from overnight_worker.post import Post
from overnight_worker.report import failure

MOST_BLOBS_IN_CHILD = 2000
MOST_BLOB_BYTES_IN_CHILD = 512 << 20


class Orders:
    """Makes the frames of batches of one run."""

    def __init__(self, post: Post, context: RunContext, inputs: Inputs) -> None:
        self._post = post
        self._context = context
        self._inputs = inputs

    def frames(self, batch: ClaimedBatch, child: ChildProcess, tell: Callable[[Member], None]) -> list[bytes]:
        """Return the frames for the open members, none if no member can run.

        A member whose inputs cannot be had ends here, and `tell` is called with it. May raise Unreachable.
        """
        blobs = self._inputs.blobs(batch.run_id, _digests(batch.open_members()))
        for member in batch.open_members():
            self._end(batch, member, needed_by(member, blobs), tell)
        results = self._results(batch, tell)
        members = batch.open_members()
        if not members:
            return []
        frames = []
        if child.served != batch.serves:
            frames.append(self._entry(batch.run_id))
            child.served = batch.serves
            child.blobs.clear()
        shared = _large_results(batch, members, results)
        needed = {digest: blobs[digest] for digest in _digests(members)}
        frames += self._missing_blobs(child, needed | {digest: results[task] for task, digest in shared.items()})
        frames.append(self._order(batch, members, results, shared))
        return frames

    def _results(self, batch: ClaimedBatch, tell: Callable[[Member], None]) -> dict[int, bytes]:
        found = self._inputs.results(batch, batch.outside_values(batch.open_members()))
        for member in batch.open_members():
            self._end(batch, member, _lacking(member, found), tell)
        bodies = {task: body for task, body in found.items() if isinstance(body, bytes)}
        for member in batch.members:
            if member.ended is not None and member.ended.ok:
                bodies[member.task] = member.ended.body
        return bodies

    def _end(self, batch: ClaimedBatch, member: Member, ended: Ended | None, tell: Callable[[Member], None]) -> None:
        if ended is None or member.stage is not Stage.OPEN:
            return
        member.stage, member.ended = Stage.ENDED, ended
        tell(member)
        batch.drop_dependants(member.position)

    def _entry(self, run_id: str) -> bytes:
        context = self._context
        fields = {
            "run": run_id,
            "directory": context.directory,
            "umask": context.umask,
            "environment": context.environment,
            "import_paths": list(context.import_paths),
            "log_dir": context.log_dir,
            "verbosity": context.verbosity,
            "isolated": context.fork_tasks or self._post.isolate_tasks,
        }
        return pack(Kind.CONTEXT, fields)

    def _missing_blobs(self, child: ChildProcess, blobs: dict[str, bytes | TaskError]) -> list[bytes]:
        frames = []
        bodies = {digest: body for digest, body in blobs.items() if isinstance(body, bytes)}
        lacking = sum(len(body) for digest, body in bodies.items() if digest not in child.blobs)
        is_large = bool(lacking) and lacking + sum(child.blobs.values()) > MOST_BLOB_BYTES_IN_CHILD
        if is_large or len(child.blobs) + len(blobs) > MOST_BLOBS_IN_CHILD:
            frames.append(pack(Kind.FORGET))
            child.blobs.clear()
        for digest, body in bodies.items():
            if digest not in child.blobs:
                frames.append(pack(Kind.BLOB, {"digest": digest}, body))
                child.blobs[digest] = len(body)
        return frames

    def _order(
        self, batch: ClaimedBatch, members: Sequence[Member], results: dict[int, bytes], shared: dict[int, str]
    ) -> bytes:
        wanted = [task for member in members for task in member.facts.values if task not in shared]
        needed = {task: results[task] for task in wanted if task in results}
        consumed = {task for member in members for task in member.facts.values}
        header = {
            "results": [[task, len(body)] for task, body in needed.items()],
            "shared": list(shared.items()),
            "tasks": [_row(batch, member, consumed) for member in members],
        }
        return pack(Kind.BATCH, header, b"".join((*needed.values(), *(member.payload for member in members))))


def _lacking(member: Member, found: Mapping[int, bytes | InputLost]) -> Ended | None:
    """Return the failure of a member of which results that it takes cannot be had, with whose they are."""
    errors = {task: error for task in member.facts.values if isinstance(error := found.get(task), InputLost)}
    if not errors:
        return None
    ended = failure(next(iter(errors.values())))
    ended.lost = tuple(islice(errors, MOST_LOST))
    return ended


def _large_results(batch: ClaimedBatch, members: Sequence[Member], results: dict[int, bytes]) -> dict[int, str]:
    """Return the digests of large results of tasks outside the batch: the child keeps these as it keeps blobs."""
    wanted = {task for member in members for task in member.facts.values}
    return {
        task: batch.digests[task].hex()
        for task in batch.outside_values(members)
        if task in wanted and len(results.get(task, b"")) > INLINE_BYTES
    }


def _row(batch: ClaimedBatch, member: Member, consumed: set[int]) -> list[object]:
    """Return the fields of the child's `Order`, with the payload's length in place of the payload."""
    facts = member.facts
    names = dict(zip(facts.dependencies, facts.dependency_ids, strict=True)) if facts.values else {}
    after = [inner.position for inner in batch.inner(member) if inner.stage is Stage.OPEN] if facts.dependencies else []
    return [
        member.position,
        member.task,
        facts.task_id,
        facts.function,
        facts.function_digest,
        member.attempt,
        facts.timeout,
        [[task, names[task]] for task in facts.values],
        after,
        member.task in consumed,
        list(facts.blobs),
        len(member.payload),
    ]


def _digests(members: Iterable[Member]) -> list[str]:
    return list(dict.fromkeys(digest for m in members for digest in (m.facts.function_digest, *m.facts.blobs)))
