"""The death certificate of a failed attempt, from what the supervisor knows of it."""

from __future__ import annotations

from overnight.certificates import DeathCertificate
from overnight.error_text import without_last_output
from overnight.own_frames import place_in_dump, place_of, without_dumped_own_frames
from overnight_worker.batch import Ended, Member
from overnight_worker.post import Post


def certified(post: Post, run_id: str, member: Member, ended: Ended) -> bytes:
    """Return the sealed certificate of an attempt that failed."""
    error = ended.error
    if error is None:
        return b""
    certificate = DeathCertificate(
        attempt=member.attempt,
        ended_by=ended.ended_by,
        type_name=error.type_name,
        message=without_last_output(error.message),
        place=place_of(error.traceback) or (place_in_dump(ended.tail) if ended.died else None),
        worker=post.name,
        host=post.host,
        ended=ended.started + ended.seconds if ended.started and ended.seconds is not None else None,
        seconds=ended.seconds,
        peak_memory=ended.peak_memory,
        tail=without_dumped_own_frames(ended.tail) if ended.died else ended.tail,
    )
    return certificate.sealed(run_id, member.task, post.keyring)
