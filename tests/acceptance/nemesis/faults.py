"""How each kind of fault strikes, and how it is mended.

A fault is a function of the arena and the fault. It returns what ends it, if it lasts, and raises `Missed` where there
is nothing to strike. Processes that it has killed are started again by the arena, as a service manager does.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil
import redis

from tests.acceptance.nemesis import tampering
from tests.acceptance.nemesis.cluster import SERVER, send
from tests.acceptance.nemesis.schedule import Fault, Missed
from tests.acceptance.nemesis.working import at_work, is_over

if TYPE_CHECKING:
    from tests.acceptance.nemesis.arena import Arena

#: So long a frozen supervisor sleeps on for another worker to do its task.
PATIENCE_SECONDS = 15.0
Mend = Callable[[], object]
Strike = Callable[["Arena", Fault, random.Random], Mend | None]


def _living(arena: Arena, names: list[str], chance: random.Random) -> str:
    living = [name for name in names if arena.cluster.lives(name)]
    if not living:
        raise Missed(f"none of {', '.join(names)} lives")
    # Who is killed in its sleep does not wake to what another has done.
    return chance.choice([name for name in living if name not in arena.asleep] or living)


def child_killed(arena: Arena, _fault: Fault, chance: random.Random) -> None:
    worker = _living(arena, arena.cluster.workers, chance)
    pid = arena.cluster.processes[worker].pid
    try:
        children = psutil.Process(pid).children()
    except psutil.NoSuchProcess:
        children = []
    if not children:
        raise Missed(f"{worker} has no child")
    send(children[0].pid, signal.SIGKILL)


def worker_killed(arena: Arena, fault: Fault, chance: random.Random) -> None:
    worker = _living(arena, arena.cluster.workers, chance)
    arena.cluster.kill(worker, alone=True)
    arena.stay_down(worker, fault.length)


def host_killed(arena: Arena, fault: Fault, chance: random.Random) -> None:
    host = chance.choice(arena.cluster.hosts)
    for worker in arena.cluster.workers:
        if arena.cluster.host_of(worker) is host:
            arena.cluster.kill(worker)
            arena.stay_down(worker, fault.length)


def host_off_the_network(arena: Arena, fault: Fault, chance: random.Random) -> Mend:
    host = chance.choice(arena.cluster.hosts)
    arena.disturb(host.name, fault.length)
    if host.device is None:
        arena.cluster.steer(host.name, black_hole=True)
        return lambda: arena.cluster.steer(host.name, black_hole=False)
    host.set_link("down")
    return lambda: host.set_link("up")


def worker_frozen(arena: Arena, fault: Fault, chance: random.Random) -> Mend:
    return _freeze(arena, _living(arena, arena.cluster.workers, chance), fault.length)


def supervisor_frozen(arena: Arena, fault: Fault, chance: random.Random) -> Mend:
    """Its child goes on and ends its task; it wakes once another worker has ended that too, if that comes to pass."""
    name, run_id, task = at_work(arena, chance)
    resume = _freeze(arena, name, fault.length, alone=True)
    arena.asleep.add(name)

    def thaw() -> None:
        arena.asleep.discard(name)
        resume()

    if is_over(arena, run_id, task):
        thaw()
        raise Missed("its task had just ended")
    limit = arena.clock() + fault.length + PATIENCE_SECONDS

    def thaw_in_time() -> None:
        if arena.clock() > limit or is_over(arena, run_id, task):
            thaw()
        else:
            arena.disturb(name, 1.0)
            arena.later(0.2, thaw_in_time)

    return thaw_in_time


def _freeze(arena: Arena, name: str, seconds: float, *, alone: bool = False) -> Mend:
    arena.disturb(None if name == SERVER else name, seconds)
    family = [] if alone else [child.pid for child in arena.cluster.family(name)]
    pids = [arena.cluster.processes[name].pid, *family]
    for pid in pids:
        send(pid, signal.SIGSTOP)

    def thaw() -> None:
        for pid in pids:
            send(pid, signal.SIGCONT)

    return thaw


def _a_scheduler(arena: Arena, chance: random.Random) -> str:
    """Mostly the leader, where the server says who that is."""
    living = _living(arena, arena.cluster.schedulers, chance)
    if chance.random() < 0.25:
        return living
    try:
        with arena.cluster.admin() as admin:
            told = admin.hget("{overnight}:scheduler", "description")
    except (redis.RedisError, OSError):
        return living
    text = told.decode() if isinstance(told, bytes) else str(told)
    pids = {
        str(arena.cluster.processes[name].pid): name for name in arena.cluster.schedulers if arena.cluster.lives(name)
    }
    return pids.get(text.partition(" ")[0].rpartition(":")[2], living)


def scheduler_killed(arena: Arena, fault: Fault, chance: random.Random) -> None:
    scheduler = _a_scheduler(arena, chance)
    arena.cluster.kill(scheduler)
    arena.stay_down(scheduler, fault.length)


def scheduler_frozen(arena: Arena, fault: Fault, chance: random.Random) -> Mend:
    return _freeze(arena, _a_scheduler(arena, chance), fault.length)


def server_killed(arena: Arena, fault: Fault, chance: random.Random) -> None:
    if not arena.cluster.kill(SERVER):
        raise Missed("the server is down")
    arena.disturb(None, fault.length)
    arena.stay_down(SERVER, fault.length)
    if chance.random() < 0.2:
        parts = sorted(arena.cluster.data.rglob("*.incr.aof"))
        for part in parts[-1:]:
            size = part.stat().st_size
            os.truncate(part, max(0, size - chance.randint(1, min(size, 100_000) or 1)))


def server_frozen(arena: Arena, fault: Fault, _chance: random.Random) -> Mend:
    if not arena.cluster.lives(SERVER):
        raise Missed("the server is down")
    return _freeze(arena, SERVER, fault.length)


def slow_fsync(arena: Arena, fault: Fault, _chance: random.Random) -> Mend:
    if shutil.which("strace") is None or not arena.cluster.lives(SERVER):
        raise Missed("strace is not installed" if arena.cluster.lives(SERVER) else "the server is down")
    arena.disturb(None, fault.length)
    inject = "inject=fsync,fdatasync:delay_enter=3000000"
    words = ["strace", "-f", "-qq", "-p", str(arena.cluster.processes[SERVER].pid)]
    words += ["-e", "trace=fsync,fdatasync", "-e", inject, "-o", os.devnull]
    process = arena.cluster.spawn(words, {}, arena.cluster.log("strace"))

    def detach() -> None:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    return detach


def data_flushed(arena: Arena, _fault: Fault, _chance: random.Random) -> None:
    arena.disturb(None, 5.0)
    try:
        with arena.cluster.admin() as admin:
            admin.flushall()
    except (redis.RedisError, OSError) as error:
        raise Missed(str(error)) from error


def old_data_restored(arena: Arena, _fault: Fault, _chance: random.Random) -> None:
    if not arena.copies:
        raise Missed("no copy is old enough")
    arena.disturb(None, 5.0)
    arena.cluster.kill(SERVER)
    for entry in arena.cluster.data.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    shutil.copytree(arena.copies[0], arena.cluster.data, dirs_exist_ok=True)
    arena.stay_down(SERVER, 0.0)


def _a_link(arena: Arena, chance: random.Random) -> str:
    return chance.choice(sorted(arena.cluster.links))


def reply_dropped(arena: Arena, _fault: Fault, chance: random.Random) -> None:
    arena.cluster.steer(_a_link(arena, chance), drop_in=chance.randint(1, 5))


def connections_reset(arena: Arena, _fault: Fault, chance: random.Random) -> None:
    arena.cluster.steer(_a_link(arena, chance), reset=True)


def black_hole(arena: Arena, fault: Fault, chance: random.Random) -> Mend:
    link = _a_link(arena, chance)
    arena.disturb(link, fault.length)
    arena.cluster.steer(link, black_hole=True)
    return lambda: arena.cluster.steer(link, black_hole=False)


def narrow_link(arena: Arena, fault: Fault, chance: random.Random) -> Mend:
    link = _a_link(arena, chance)
    arena.disturb(link, fault.length)
    arena.cluster.steer(link, bandwidth=1000, slice=100, latency=0.05, slow_close=0.2)
    return lambda: arena.cluster.steer(link, bandwidth=None, slice=None, latency=0.0, slow_close=0.0)


def server_memory_full(arena: Arena, fault: Fault, _chance: random.Random) -> Mend:
    arena.disturb(None, fault.length)

    def limit(share: float) -> None:
        with arena.cluster.admin() as admin:
            admin.config_set("maxmemory", int(admin.info("memory")["used_memory"] * share))

    def unlimited() -> None:
        if arena.cluster.lives(SERVER):
            arena.patiently(lambda: limit(0))

    try:
        limit(0.9)
    except (redis.RedisError, OSError) as error:
        raise Missed(str(error)) from error
    return unlimited


def disk_full(arena: Arena, fault: Fault, chance: random.Random) -> Mend:
    if not arena.cluster.is_bounded:
        raise Missed("there is no file system of our own")
    place = chance.choice([arena.cluster.disk, arena.cluster.data])
    arena.disturb(None, fault.length)
    filler = place / "filler"
    free = os.statvfs(place)
    with filler.open("ab", buffering=0) as file:
        with suppress(OSError):
            os.posix_fallocate(file.fileno(), filler.stat().st_size, max(4096, free.f_bavail * free.f_frsize))
        file.seek(0, os.SEEK_END)
        with suppress(OSError):
            while file.write(bytes(1 << 20)):
                continue
    return lambda: filler.unlink(missing_ok=True)


def client_disturbed(arena: Arena, fault: Fault, chance: random.Random) -> None:
    what = chance.choice(["interrupt", "kill", "hang up", "second"])
    now = arena.clock()
    if what == "second":
        arena.clients.start(now)
        return
    number = {"interrupt": signal.SIGINT, "kill": signal.SIGKILL, "hang up": signal.SIGHUP}[what]
    if not arena.clients.send(number, now, back_after=fault.length):
        raise Missed("no client is there")


def key_changed(arena: Arena, _fault: Fault, chance: random.Random) -> Mend:
    """First everybody learns the new key, then it signs."""
    new = chance.randbytes(32).hex()
    arena.cluster.keys.append(new)
    _restart_with_keys(arena)

    def sign_with_it() -> None:
        arena.cluster.keys.remove(new)
        arena.cluster.keys.insert(0, new)
        _restart_with_keys(arena)

    return sign_with_it


def _restart_with_keys(arena: Arena) -> None:
    arena.cluster.write_keys()
    for name in (*arena.cluster.schedulers, *arena.cluster.workers):
        arena.cluster.signal(name, signal.SIGCONT)
        arena.cluster.kill(name)
    while arena.clients.send(signal.SIGKILL, arena.clock(), back_after=0.0):
        continue


def wrong_key(arena: Arena, _fault: Fault, chance: random.Random) -> Mend:
    file = arena.cluster.directory / "wrong-keys"
    file.touch(0o600)
    file.write_text(chance.randbytes(32).hex(), "ascii")
    return _stranger(arena, "stranger-key", chance, OVERNIGHT_SECRET_KEY_FILE=str(file))


def other_python(arena: Arena, _fault: Fault, chance: random.Random) -> Mend:
    if arena.other_python is None:
        raise Missed("no other Python was named (--other-python)")
    return _stranger(arena, "stranger-python", chance, python=arena.other_python)


def _stranger(arena: Arena, name: str, chance: random.Random, **options: str) -> Mend:
    arena.cluster.kill(name)
    arena.cluster.start_worker(name, chance.choice(arena.cluster.hosts), **options)
    arena.strangers.add(arena.cluster.processes[name].pid)
    return lambda: arena.cluster.kill(name)


STRIKES: dict[str, Strike] = {
    "child killed": child_killed,
    "worker killed": worker_killed,
    "host killed": host_killed,
    "host off the network": host_off_the_network,
    "worker frozen": worker_frozen,
    "supervisor frozen": supervisor_frozen,
    "scheduler killed": scheduler_killed,
    "scheduler frozen": scheduler_frozen,
    "server killed": server_killed,
    "server frozen": server_frozen,
    "slow fsync": slow_fsync,
    "data flushed": data_flushed,
    "old data restored": old_data_restored,
    "reply dropped": reply_dropped,
    "connections reset": connections_reset,
    "black hole": black_hole,
    "narrow link": narrow_link,
    "server memory full": server_memory_full,
    "disk full": disk_full,
    "flags tampered with": tampering.strike,
    "client disturbed": client_disturbed,
    "key changed": key_changed,
    "worker with a wrong key": wrong_key,
    "worker with another Python": other_python,
}
