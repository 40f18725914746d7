"""Ray: actors that run rollouts, for generation and for evaluation.

One actor owns one pipeline and keeps `concurrency` rollouts in flight in its own event loop. It gets scenario indices
in small leases and streams finished records back in small batches; only indices go in, only records come out. The
driver alone writes. An actor or a node that dies gives its leases back: the driver starts another in its place and
retries by index. Ray's own retries are off, since a replayed stream loses and doubles records.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import psutil
import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from tracemill.config import Config
from tracemill.errors import ClusterError, ConfigError, TeacherDied, TracemillError
from tracemill.job import engines
from tracemill.writer import Parcel

BATCH = 32
BATCH_SECONDS = 0.2
LONELY_AFTER = 2  # deaths in company after which an index is run with nothing beside it
MOST_STILLBORN = 10  # actors in a row that die before they have begun
MOST_REFUSED = 3  # actors in a row that say why they cannot begin
MOST_DEAD = 8  # engines in a row that die with nothing done in between
WORDS_SECONDS = 1.0  # how long an actor whose engine is dead stays, for its last words to reach the driver
MOST_LOST = 3  # tries of an index that is lost for a reason that may pass
DROP_SECONDS = 10.0  # how long actors may take to close what their rollouts hold, when a run ends
GIVEN_UP_AFTER = 3  # deaths alone after which it is quarantined


class Mill(Protocol):
    """Does what there is to do, index by index; it lives in an actor."""

    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def mill(self, index: int) -> Any: ...


class Work(Protocol):
    """What there is to do; it travels to the actors."""

    @property
    def config(self) -> Config: ...

    def build(self, actors: int) -> Mill:
        """The mill of one of so many actors."""

    def pack(self, milled: Any) -> Parcel:
        """What came of an index, as it is sent to the driver: at least {index, reason (empty if it went well), lost}."""

    def quarantined(self, index: int, reason: str) -> Parcel:
        """The same of an index that nothing can be made of."""


class Sink(Protocol):
    """Where the parcels go."""

    @property
    def full(self) -> bool: ...

    @property
    def frontier(self) -> int:
        """Every index below is done or not wanted."""

    def wants(self, index: int) -> bool: ...
    def add(self, parcel: Parcel) -> None: ...


@ray.remote(max_restarts=0, max_task_retries=0)
class Miller:
    """Mills leases of indices. Several leases run side by side; the semaphore counts rollouts, not leases."""

    def __init__(self, work: Work, concurrency: int, actors: int) -> None:
        self._work = work
        self._mill = work.build(actors)
        gc.set_threshold(50_000, 50, 100)  # records hold no cycles: looking for them often costs a tenth of the time
        self._slots = asyncio.Semaphore(concurrency)
        self._tasks: set[asyncio.Task[None]] = set()
        self._dead = False

    async def begin(self) -> None:
        """Get the teachers ready, which may take minutes. Raises ConfigError or TeacherError."""
        await self._mill.start()

    async def mill(self, indices: list[int]) -> Any:
        """Yields lists of parcels as they get ready, at most BATCH at a time or what came in BATCH_SECONDS."""
        ready: asyncio.Queue[Parcel] = asyncio.Queue()
        tasks = [asyncio.create_task(self._one(index, ready)) for index in indices]
        self._tasks.update(tasks)
        left = len(indices)
        while left:
            batch = [await ready.get()]
            since = time.monotonic()
            while len(batch) < min(BATCH, left) and time.monotonic() - since < BATCH_SECONDS:
                try:
                    batch.append(ready.get_nowait())
                except asyncio.QueueEmpty:
                    await asyncio.sleep(0.005)
            left -= len(batch)
            yield batch
            if self._dead:  # only a new process gets a new engine; the driver gives what is out to others
                await asyncio.sleep(WORDS_SECONDS)
                os._exit(1)
        for task in tasks:
            await task
        self._tasks.difference_update(tasks)

    async def drop(self) -> None:
        """Leave all rollouts, so that they close what they hold: a server's processes and its folder outlive a kill."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._mill.close()

    async def _one(self, index: int, ready: asyncio.Queue[Parcel]) -> None:
        async with self._slots:
            try:
                ready.put_nowait(self._work.pack(await self._mill.mill(index)))
            except TeacherDied as reason:
                self._dead = True
                ready.put_nowait({"index": index, "died": str(reason)})


@dataclass
class _Worker:
    """An actor as the driver sees it: its open leases and what is still out."""

    actor: Any
    awaited: Any
    """Its first answer; until that is there it gets no lease, since it may wait for a place in the cluster."""
    leases: dict[Any, set[int]] = field(default_factory=dict)
    """Stream of a lease -> indices that have not come back."""
    returned: int = 0
    last_words: str = ""
    """Why its engine died."""

    @property
    def out(self) -> int:
        return sum(len(lease) for lease in self.leases.values())


def start(*, address: str | None = None, cpus: int | None = None, on_loss: Callable[[], None] | None = None) -> None:
    """Start a local Ray, or join the cluster at `address` ('auto' for the one that is running).

    When the raylet of a local Ray dies, calls into Ray hang for ever; then its other processes are ended and
    `on_loss` is called, from a thread of its own.
    """
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address:
            ray.init(address=address, **quiet)
            return
        ray.init(address="local", num_cpus=cpus, object_store_memory=256 * 1024**2, **quiet)
    except Exception as reason:  # Ray raises plain Exception here
        where = f"at {address}" if address else "on this machine"
        raise ClusterError(f"Ray did not start {where}: {reason}. Nothing is lost: run the same command again.") from reason
    if on_loss is not None:
        threading.Thread(target=_watch, args=(_raylet(), on_loss), daemon=True).start()


def _raylet() -> psutil.Process:
    """The one of this Ray: a run that has begun again in place is still the parent of the one that died."""
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if child.name() == "raylet" and _lives(child):
                return child
    raise ClusterError("Ray's raylet has died as soon as it was there. Nothing is lost: run the same command again.")


def _lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):  # it may be gone between two questions
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    return False


def _watch(raylet: psutil.Process, on_loss: Callable[[], None]) -> None:
    while _lives(raylet):
        time.sleep(0.1)
    if not ray.is_initialized():
        return  # ended by ray.shutdown()
    for process in [*psutil.Process().children(recursive=True), *_workers_of(raylet.pid)]:
        with contextlib.suppress(psutil.Error):
            process.kill()
    on_loss()


def _workers_of(raylet: int) -> Iterator[psutil.Process]:
    """Workers outlive their raylet; they carry its process id in their environment."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("RAY_RAYLET_PID") == str(raylet):
                yield process


def gpus_per_actor(config: Config) -> float:
    """What each actor needs: as its engines say, or one for each part of a model where the cluster has any."""
    there = _resources("GPU") > 0
    return sum(one.gpus if one.gpus is not None else one.tensor_parallel if there else 0 for one in engines(config))


def actors_for(config: Config) -> int:
    """As many actors as there is room for: one for each share of the GPUs; without GPUs one engine, or one actor a core."""
    if config.actors:
        return config.actors
    gpus = gpus_per_actor(config)
    if gpus:
        return max(1, int(_resources("GPU") / gpus))
    return 1 if engines(config) else int(_resources("CPU"))


def _resources(name: str) -> float:
    return float(cast("Any", ray).cluster_resources().get(name, 0))


def run(
    work: Work,
    sink: Sink,
    *,
    actors: int,
    on_progress: Callable[[int], None] = lambda in_flight: None,
    on_notice: Callable[[str], None] = lambda text: None,
    should_stop: Callable[[], bool] = lambda: False,
    give_up_after: int = 5000,
) -> str:
    """Mill until the sink is full. Returns 'complete', 'stopped' or 'barren' (that many indices in a row rejected).

    Raises ConfigError where a teacher does not take its settings, ClusterError where actors or their teachers do not begin, or
    stop answering.
    """
    return _Drive(work, sink, actors, on_progress, on_notice, should_stop, give_up_after).run()


class _Drive:
    def __init__(
        self,
        work: Work,
        sink: Sink,
        actors: int,
        on_progress: Callable[[int], None],
        on_notice: Callable[[str], None],
        should_stop: Callable[[], bool],
        give_up_after: int,
    ) -> None:
        self._work = work
        self._concurrency = work.config.concurrency
        self._sink = sink
        self._on_progress = on_progress
        self._on_notice = on_notice
        self._should_stop = should_stop
        self._give_up_after = give_up_after
        self._gpus = gpus_per_actor(work.config)
        self._stillborn = 0
        self._refused = 0
        self._taken = 0
        self._actors = actors
        self._workers = [self._hire() for _ in range(actors)]
        self._next_index = 0
        self._returned: list[int] = []
        self._deaths: Counter[int] = Counter()
        self._lost: Counter[int] = Counter()
        self._lost_in_a_row = 0
        self._dead_in_a_row = 0
        self._barren = 0

    def run(self) -> str:
        try:
            while not self._sink.full:
                if self._should_stop():
                    return "stopped"
                if self._barren >= self._give_up_after:
                    return "barren"
                self._lease()
                self._collect()
                self._on_progress(sum(worker.out for worker in self._workers))
            return "complete"
        finally:
            dropped = [worker.actor.drop.remote() for worker in self._workers if worker.awaited is None]
            if dropped:
                ray.wait(dropped, num_returns=len(dropped), timeout=DROP_SECONDS)
            for worker in self._workers:
                ray.kill(worker.actor)

    def _hire(self) -> _Worker:
        # Leases of one index each, and one for the rest: more calls than that never wait in one actor.
        made: Any = Miller  # Ray's decorator is not typed as what it makes
        options = made.options(num_cpus=1, num_gpus=self._gpus, max_concurrency=self._concurrency + 8)
        actor = options.remote(self._work, self._concurrency, self._actors)
        return _Worker(actor, actor.begin.remote())

    def _replace(self, worker: _Worker) -> None:
        """Another actor takes the place of one that is dead."""
        fresh = self._hire()
        worker.actor, worker.awaited = fresh.actor, fresh.awaited

    def _lease(self) -> None:
        """Fill every actor up to its concurrency and a little more, so that it never runs dry between two leases: as much
        more as it has returned, since what waits in one that is slow the others could be at."""
        lonely = [index for index in self._returned if self._deaths[index] >= LONELY_AFTER]
        if lonely:
            self._lease_alone(lonely[0])
            return
        for worker in self._workers:
            more = min(worker.returned, max(BATCH, self._concurrency // 2))
            room = self._concurrency + more
            if self._is_ready(worker) and worker.out <= room - max(1, more // 2):
                indices = self._next(room - worker.out)
                if indices:
                    self._send(worker, indices)

    def _is_ready(self, worker: _Worker) -> bool:
        """Whether the actor has begun. Raises ConfigError or ClusterError if none can be made that does."""
        if worker.awaited is None:
            return True
        ready, _ = ray.wait([worker.awaited], timeout=0.0)
        if not ready:
            return False
        try:
            ray.get(worker.awaited)
        except RayTaskError as reason:
            self._refused += 1
            cause = reason.cause
            if isinstance(cause, ConfigError):
                raise cause from None
            if self._refused > MOST_REFUSED or self._taken == 0:
                evidence = cause.problems if isinstance(cause, TracemillError) else ()
                said = cause.message if isinstance(cause, TracemillError) else str(cause)
                raise ClusterError(f"an actor could not begin: {said}", evidence) from None
            ray.kill(worker.actor)
            self._replace(worker)
            return False
        except RayError as reason:
            self._stillborn += 1
            if self._stillborn > MOST_STILLBORN:
                raise ClusterError(f"{self._stillborn} actors in a row died before they had begun: {reason}") from reason
            self._replace(worker)
            return False
        self._stillborn = self._refused = 0
        worker.awaited = None
        return True

    def _lease_alone(self, index: int) -> None:
        """An index that was there whenever an actor died runs with nothing beside it, so that it takes down nobody."""
        idle = next((worker for worker in self._workers if self._is_ready(worker)), None)
        if idle is None or any(worker.out for worker in self._workers):
            return
        self._returned.remove(index)
        self._send(idle, [index])

    def _next(self, count: int) -> list[int]:
        found = [index for index in self._returned[:count] if self._sink.wants(index)]
        self._returned = self._returned[count:]
        limit = self._sink.frontier + self._look_ahead()
        self._next_index = max(self._next_index, self._sink.frontier)
        while len(found) < count and self._next_index <= limit:  # what is not wanted now will not be wanted later
            if self._sink.wants(self._next_index):
                found.append(self._next_index)
            self._next_index += 1
        return found

    def _look_ahead(self) -> int:
        """How far beyond the oldest open index work may go: it bounds what waits in memory."""
        return max(4096, 16 * len(self._workers) * self._concurrency)

    def _send(self, worker: _Worker, indices: list[int]) -> None:
        stream = worker.actor.mill.options(num_returns="streaming").remote(indices)
        worker.leases[stream] = set(indices)

    def _collect(self) -> None:
        """Take what has come, from whichever stream; wait half a second if nothing has."""
        by_stream = {stream: worker for worker in self._workers for stream in worker.leases}
        if not by_stream:
            awaited = [worker.awaited for worker in self._workers if worker.awaited is not None]
            if not awaited:  # a run that waits for what nobody does would wait for ever
                raise ClusterError(
                    f"nothing is left to do from index {self._sink.frontier} on, and the run is not complete: a fault of tracemill's own",
                    ["nothing is lost: run the same command again to continue"],
                )
            ray.wait(awaited, timeout=0.5)
            return
        ready, _ = ray.wait(list(by_stream), num_returns=len(by_stream), timeout=0.0, fetch_local=False)
        if not ready:
            ready, _ = ray.wait(list(by_stream), num_returns=1, timeout=0.5, fetch_local=False)
        for stream in ready:
            worker = by_stream[stream]
            if stream not in worker.leases:
                continue  # given back a moment ago
            try:
                self._take(worker, stream, ray.get(next(cast("Iterator[Any]", stream))))
            except StopIteration:
                self._returned += [index for index in worker.leases.pop(stream) if self._sink.wants(index)]
            except RayActorError:
                self._bury(worker)
            except RayError:
                self._fail(worker.leases.pop(stream))

    def _take(self, worker: _Worker, stream: Any, batch: list[Parcel]) -> None:
        for parcel in batch:
            if "died" in parcel:
                worker.last_words = parcel["died"]
                continue  # what it had stays with it until it is buried
            worker.leases[stream].discard(parcel["index"])
            self._dead_in_a_row = 0
            worker.returned += 1
            self._taken += 1
            if parcel["lost"] and self._try_again(parcel):
                continue
            if not parcel["lost"]:
                self._lost_in_a_row = 0
            self._barren = self._barren + 1 if parcel["reason"] else 0
            self._sink.add(parcel)
        if not worker.leases[stream]:
            del worker.leases[stream]

    def _try_again(self, parcel: Parcel) -> bool:
        """Whether an index that was lost goes back to the queue. Raises ClusterError where nothing else comes any more."""
        index, reason = parcel["index"], parcel["reason"]
        self._lost_in_a_row += 1
        if self._lost_in_a_row >= MOST_LOST * max(8, self._concurrency * len(self._workers)):
            raise ClusterError(f"no replies come any more: {reason}", ["nothing is lost: run the same command again to continue"])
        self._lost[index] += 1
        if self._lost[index] >= MOST_LOST:
            return False
        if self._sink.wants(index):
            self._returned.append(index)
        return True

    def _bury(self, worker: _Worker) -> None:
        """The actor is dead: what it had goes back, and another takes its place. Raises ClusterError if engines only die."""
        if worker.last_words:
            self._dead_in_a_row += 1
            if self._dead_in_a_row >= MOST_DEAD:
                raise ClusterError(f"{MOST_DEAD} engines in a row died with nothing done in between, the last so: {worker.last_words}")
            self._on_notice(f"An engine died; a new one takes its place. {worker.last_words}")
            worker.last_words = ""
        lost = [index for lease in worker.leases.values() for index in lease]
        worker.leases.clear()
        self._fail(lost)
        self._replace(worker)

    def _fail(self, lost: Iterable[int]) -> None:
        for index in lost:
            self._deaths[index] += 1
            if self._deaths[index] >= LONELY_AFTER + GIVEN_UP_AFTER:
                deaths = self._deaths[index]
                reason = f"the actor died {deaths} times while it ran this scenario, the last times with nothing beside it"
                self._sink.add(self._work.quarantined(index, reason))
            elif self._sink.wants(index):
                self._returned.append(index)
