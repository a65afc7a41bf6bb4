"""A tiny model of what surrounds the core: the stored truth of a run, its workers, and a bad event channel.

`Surroundings` performs the core's actions on the truth as the real scripts would (compare, then set; a step that does
not fit is refused) and reports what workers do as events. Events wait in `channel`, from where they are delivered in
any order, twice or never. After each delivery the model compares what the core did with what it may do.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

from overnight.core.actions import Action, Again, Dispatch, Ended, Repair, RunEnded, StopBatch
from overnight.core.events import (
    BatchClaimed,
    BatchLost,
    BatchReturned,
    CancelRequested,
    Charge,
    Event,
    Flight,
    NewTask,
    Offer,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    SlotsOffered,
    StateRead,
    TaskFailed,
    TaskRules,
    TasksAdded,
    TasksAdopted,
    TasksInvalidated,
    TaskSucceeded,
    Woken,
)
from overnight.core.invariants import check
from overnight.core.run_state import RunState
from overnight.core.states import SUCCEEDED, TERMINAL, TRANSITIONS, TaskState

P, Q, X, T = TaskState.PENDING, TaskState.QUEUED, TaskState.RUNNING, TaskState.TRIED
REOPENING = (RetryRequested, TasksInvalidated, StateRead)
MOST_LOSSES = 3  # O7
MOST_REPAIRS = 3  # P12
LIMITS = {"memory": 2.0}


@dataclass
class Job:
    """A batch as a worker knows it. `tasks` are those it was given; a job that lost its lease may go on as a zombie."""

    id: str
    queue: str | None
    tasks: list[int]
    claimed: bool = False
    stopped: bool = False
    zombie: bool = False
    ended: set[int] = field(default_factory=set)


class Surroundings:
    """The core under test with everything around it. `faultless` channels lose nothing, so nothing needs repair."""

    def __init__(self, rng: Random, *, fail_fast: bool = False, faultless: bool = False) -> None:
        self.rng, self.faultless, self.fail_fast = rng, faultless, fail_fast
        self.core = RunState(fail_fast=fail_fast, resource_limits=LIMITS, by_paths=True)
        self.states: list[TaskState] = []
        self.attempts: list[int] = []
        self.rules: list[TaskRules] = []
        self.dependencies: list[Sequence[int]] = []
        self.charges: dict[int, Charge] = {}
        self.failures: list[int] = []
        self.hopeless: set[int] = set()
        #: TRIED tasks that lacked inputs, with those that are lost.
        self.lacking: dict[int, Sequence[int]] = {}
        #: Tasks of which no success in flight counts any more.
        self.void: set[int] = set()
        self.repairs: Counter[int] = Counter()
        self.owner: dict[int, str] = {}
        self.jobs: dict[str, Job] = {}
        self.channel: deque[Event] = deque()
        self.now, self.batches = 0.0, 0
        #: How likely it is that an attempt lacks an input.
        self.losing = rng.choice((0.0, 0.0, 0.05, 0.3))
        self.cancelling = self.paused = self.must_repair = self.lost_events = False
        self.over = False

    # What happens outside.

    def add_tasks(self, number: int) -> None:
        first, rng, tasks = len(self.states), self.rng, []
        for task in range(first, first + number):
            below = range(max(0, task - 12), task)
            dependencies = tuple(rng.choices(below, k=rng.choice((0, 1, 1, 2, 3)))) if below else ()
            rules = TaskRules(
                retries=rng.choice((0, 0, 1, 3)),
                retry_delay=rng.choice((0.0, 0.0, 5.0)),
                priority=rng.choice((0, 0, 0, 7, -2)),
                queue=rng.choice((None, None, "q")),
                resources=rng.choice(((), (), (("memory", 1.0),), (("memory", 2.0), ("licence", 1.0)))),
            )
            tasks.append(NewTask(dependencies, rules, rng.randrange(3)))
            self.rules.append(rules)
            self.dependencies.append(dependencies)
        self.states += [P] * number
        self.attempts += [0] * number
        self.failures += [0] * number
        self.deliver(TasksAdded(first, tasks))
        if not self.faultless and rng.random() < 0.3:
            self.deliver(TasksAdded(first, tasks))

    def offer(self) -> None:
        rng, offers = self.rng, []
        for _ in range(rng.randint(1, 3)):
            self.batches += 1
            offers.append(
                Offer(
                    f"b{self.batches}", rng.choice((None, None, "q")), rng.choice((1, 4, 50)), 1.0, chain_seconds=10.0
                )
            )
        self.deliver(SlotsOffered(self.now, offers))

    def work(self) -> None:
        """Some worker takes one step with some batch."""
        jobs = [job for job in self.jobs.values() if set(job.tasks) - job.ended]
        if not jobs:
            return
        job = self.rng.choice(jobs)
        if not job.claimed:
            self._claim(job)
        elif job.stopped and not job.zombie:
            self._give_back(job, [t for t in job.tasks if t not in job.ended])
        else:
            task = next(t for t in job.tasks if t not in job.ended)
            if all(self.states[d] in SUCCEEDED for d in self.dependencies[task]):
                self._finish(job, task)
            else:
                self._give_back(job, [task])

    def kill_worker(self) -> None:
        """A lease runs out: the truth takes the tasks back; the worker is dead, or goes on unknowing."""
        jobs = [job for job in self.jobs.values() if job.claimed and not job.zombie and self._held(job)]
        if jobs:
            job = self.rng.choice(jobs)
            for task in self._held(job):
                self._take(task)
            job.zombie = True
            if self.rng.random() < 0.5:
                job.ended.update(job.tasks)
            self._emit(BatchLost(job.id, self.now))

    def drain_worker(self) -> None:
        """A worker gives back what it has not started: everything behind the first task that it holds."""
        jobs = [job for job in self.jobs.values() if not job.zombie and self._held(job)]
        if jobs:
            job = self.rng.choice(jobs)
            self._give_back(job, self._held(job)[self.rng.randint(0, 1) :])

    def deliver_one(self) -> None:
        if not self.channel:
            return
        chance = 1.0 if self.faultless else self.rng.random()
        if self.rng.random() < 0.5:
            self.channel.rotate(self.rng.randrange(len(self.channel)))
        event = self.channel.popleft()
        if chance < 0.1:
            self.lost_events = True
            return
        if chance < 0.3:
            self.channel.append(event)
        self.deliver(event)

    def cancel(self) -> None:
        self.cancelling = not self.core.phase.is_over
        self.deliver(CancelRequested())

    def retry(self, tasks: Sequence[int] = ()) -> None:
        dead = [t for t in tasks or range(len(self.states)) if self.core.state(t) in TERMINAL - SUCCEEDED]
        if dead or not tasks:
            self.cancelling = False
            self.repairs.clear()
        self.deliver(RetryRequested(tasks))

    def invalidate(self, task: int) -> None:
        """The truth tells of an invalidation after all that it told before."""
        gone = {task}
        for other, dependencies in enumerate(self.dependencies):
            if gone.intersection(dependencies):
                gone.add(other)
        if self.states[task] in SUCCEEDED and all(self.core.state(t) is self.states[t] for t in gone):
            self.channel = deque(e for e in self.channel if not (isinstance(e, TaskSucceeded) and e.task in gone))
            self.deliver(TasksInvalidated((task,)))
            assert all(self.core.state(t) not in SUCCEEDED for t in gone), "a result outlives what it was computed from"

    def adopt(self, task: int) -> None:
        self.deliver(TasksAdopted((task, task, len(self.states) + 5)))

    def pause(self, *, paused: bool) -> None:
        self.paused = paused
        self.deliver(PauseRequested() if paused else ResumeRequested())

    def pass_time(self) -> None:
        self.now += self.rng.choice((0.5, 3.0, 20.0))
        self.deliver(Woken(self.now))

    def repair(self) -> None:
        """The truth is read and taken over."""
        self.must_repair = False
        flights = [
            Flight(job.id, job.queue or "q", tuple(job.tasks), job.claimed)
            for job in self.jobs.values()
            if self._held(job) and not self._forget(job)
        ]
        read = b"".join(bytes((s, a)) for s, a in zip(self.states, self.attempts, strict=True))
        known = (dict(self.charges), self.cancelling, self.paused)
        lacking = {task: lost for task, lost in self.lacking.items() if self.states[task] is T}
        self.deliver(StateRead(self.now, read, flights, *known, lacking, dict(self.repairs)))

    def _forget(self, job: Job) -> bool:
        """Sometimes a crash has torn a batch out of the record of those in flight."""
        job.zombie = job.zombie or (not self.faultless and self.rng.random() < 0.1)
        return job.zombie

    def restart_core(self) -> None:
        """A new scheduler: it knows the graph and reads the truth."""
        self.core = RunState(fail_fast=self.fail_fast, resource_limits=LIMITS, by_paths=True)
        self.over = False
        self.core.handle(
            TasksAdded(
                0,
                [
                    NewTask(d, r, number % 3)
                    for number, (d, r) in enumerate(zip(self.dependencies, self.rules, strict=True))
                ],
            )
        )
        self.repair()

    def quieten(self) -> None:
        """Faults stop; what is in the channel arrives; the run must end, by itself if nothing was lost."""
        self.faultless = True
        self.losing = 0.0
        self.paused = False
        for step in range(60 + 40 * len(self.states)):
            while self.channel:
                self.deliver(self.channel.popleft())
            if self.must_repair or (self.lost_events and step % 200 == 0):
                self.repair()
            if self.core.phase.is_over:
                break
            self.deliver(ResumeRequested())
            self.now += 4000.0
            self.offer()
            for _ in range(4):
                self.work()
        self._compare_at_the_end()

    # The truth.

    def _claim(self, job: Job) -> None:
        job.claimed = True
        for task in self._held(job):
            self.states[task] = X
        job.ended.update(set(job.tasks) - set(self._held(job)))
        self._emit(BatchClaimed(job.id))

    def _finish(self, job: Job, task: int) -> None:
        if task in self.void:
            self._give_back(job, [task])
            return
        if self.dependencies[task] and self.owner.get(task) == job.id and self.rng.random() < self.losing:
            self._lack(job, task)
            return
        job.ended.add(task)
        outcome = self.rng.random()
        if outcome < 0.75:
            if self.states[task] not in TERMINAL:
                self._take(task, TaskState.DONE)
                self._emit(TaskSucceeded(task, self.rng.choice((None, 0.001, 0.02, 3.0))))
        elif self.owner.get(task) == job.id:
            self._take(task, T)
            self.failures[task] += 1
            hopeless = outcome > 0.97
            if hopeless:
                self.hopeless.add(task)
            self._emit(TaskFailed(task, job.id, self.now, hopeless, self.rng.uniform(0.5, 1.5)))

    def _lack(self, job: Job, task: int) -> None:
        """The worker of a task does not find some of its inputs."""
        needed = sorted(set(self.dependencies[task]))
        lost = tuple(self.rng.sample(needed, self.rng.randint(1, len(needed))))
        job.ended.add(task)
        self._take(task, T)
        self.lacking[task] = lost
        self._emit(TaskFailed(task, job.id, self.now, False, 1.0, lost))

    def _give_back(self, job: Job, tasks: Sequence[int]) -> None:
        job.ended.update(tasks)
        owned = [task for task in tasks if self.owner.get(task) == job.id]
        for task in owned:
            self._take(task)
        if owned:
            self._emit(BatchReturned(job.id, owned))

    def _take(self, task: int, state: TaskState = P) -> None:
        self.owner.pop(task, None)
        self.states[task] = state

    def _held(self, job: Job) -> list[int]:
        return [task for task in job.tasks if self.owner.get(task) == job.id]

    def _emit(self, event: Event) -> None:
        self.channel.append(event)

    # The core is told, and does what it may do.

    def deliver(self, event: Event) -> None:
        before = [self.core.state(task) for task in range(len(self.core))]
        numbers = [self.core.attempt(task) for task in range(len(self.core))]
        actions = self.core.handle(event)
        check(self.core)
        for task, former in enumerate(before):
            if former in TERMINAL and not isinstance(event, REOPENING) and not getattr(event, "lost", ()):
                assert self.core.state(task) is former, f"{event} changed the terminal task {task}"
            # The truth did not count a dispatch that it refused, and the core follows it.
            lowered = self.core.attempt(task) < numbers[task]
            assert not lowered or isinstance(event, StateRead), f"{event} lowered an attempt"
        self._perform(event, actions)
        ended = [a for a in actions if isinstance(a, RunEnded)]
        assert len(ended) <= 1
        if ended:
            assert ended[0].phase is self.core.phase
            assert not self.over or isinstance(event, (*REOPENING, TasksAdded)), "the end was announced twice"
        assert not self.core.phase.is_over or self.over or ended, "the end was not announced"
        self.over = self.core.phase.is_over

    def _perform(self, event: Event, actions: Sequence[Action]) -> None:
        finished: set[int] = set()
        for action in actions:
            if isinstance(action, Dispatch):
                assert isinstance(event, SlotsOffered)
                self._dispatch(action)
            elif isinstance(action, Repair):
                self._record_repair(action)
            elif isinstance(action, Ended):
                assert action.task not in finished, f"task {action.task} ended twice"
                finished.add(action.task)
                self._record_end(action)
            elif isinstance(action, Again):
                finished.discard(action.task)
                self._record_again(event, action)
            elif isinstance(action, StopBatch) and action.batch in self.jobs:
                self.jobs[action.batch].stopped = True

    def _dispatch(self, action: Dispatch) -> None:
        assert not self.paused, "a paused run dispatches"
        job = Job(action.batch, action.queue, [])
        for place, (task, number) in enumerate(zip(action.tasks, action.attempts, strict=True)):
            for dependency in self.dependencies[task]:
                done = self.states[dependency] in SUCCEEDED
                assert done or dependency in action.tasks[:place], f"{task} was sent before {dependency} was done"
            if self.states[task] is P:
                assert self.charges.get(task, Charge()).not_before <= self.now, f"task {task} started in its backoff"
                assert number > self.attempts[task] or number == 255
                self.states[task], self.attempts[task], self.owner[task] = Q, number, job.id
                self.void.discard(task)
                self.lacking.pop(task, None)
                job.tasks.append(task)
        if job.tasks:
            self.jobs[job.id] = job

    def _record_end(self, action: Ended) -> None:
        task = action.task
        if action.state is TaskState.FAILED:
            charge = self.core.charge(task)
            tried = self.failures[task] > self.rules[task].retries or task in self.hopeless
            if action.lacked is not None:
                assert self.repairs[action.lacked] >= MOST_REPAIRS, f"{action.lacked} is not computed again for {task}"
            else:
                assert tried if not action.lost else charge.losses >= MOST_LOSSES, f"task {task} failed too early"
        if action.state is TaskState.SKIPPED:
            assert action.cause is not None
            assert self.core.state(action.cause) is TaskState.FAILED
        if self.states[task] is action.state:
            return
        if self.states[task] in TERMINAL or (self.states[task], action.state) not in TRANSITIONS:
            self.must_repair = True
            return
        self._take(task, action.state)

    def _record_again(self, event: Event, action: Again) -> None:
        task = action.task
        if self.states[task] in SUCCEEDED and not isinstance(event, TasksInvalidated):
            return
        assert not (isinstance(event, TaskFailed) and event.hopeless), "a hopeless failure is repeated"
        assert not (isinstance(event, (TaskFailed, BatchReturned)) and action.charge.losses), "a row of losses goes on"
        if task in self.lacking:
            lost_too_often = any(self.repairs[lost] >= MOST_REPAIRS for lost in self.lacking[task])
            assert lost_too_often or action.charge.failures <= self.charges.get(task, Charge()).failures, "charged"
            self.failures[task] = max(self.failures[task], action.charge.failures)
        if action.charge == Charge():
            self.failures[task] = 0
            self.hopeless.discard(task)
        self.charges[task] = action.charge
        self._take(task)

    def _record_repair(self, action: Repair) -> None:
        """What is recorded of these tasks is forgotten, each before what it was computed from."""
        named = set(action.tasks)
        kept = deque(e for e in self.channel if not (isinstance(e, TaskSucceeded) and e.task in named))
        self.must_repair = self.must_repair or len(kept) < len(self.channel)
        self.channel = kept
        for task in action.tasks:
            if self.states[task] in SUCCEEDED:
                self.repairs[task] += task in action.lost
                self.states[task] = P
            elif self.states[task] not in TERMINAL:
                self.void.add(task)
                self.lacking.update({task: ()} if task in self.lacking else {})
            used = [t for t, needed in enumerate(self.dependencies) if task in needed and self.states[t] in SUCCEEDED]
            assert self.must_repair or not used, f"{used} outlive {task}, of which they were computed"

    def _compare_at_the_end(self) -> None:
        assert self.core.phase.is_over, f"the run does not end: {self.core.counts()}"
        while self.channel:
            self.deliver(self.channel.popleft())
        if self.must_repair:
            self.repair()
        assert [self.core.state(t) for t in range(len(self.core))] == self.states
        assert not self.core.blocked()
        assert self.core.outstanding() == 0
