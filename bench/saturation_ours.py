"""Our side of saturation.py: the pipeline in a Ray actor, with an engine that really writes every message of the agent.

    python bench/saturation_ours.py FOLDER

A random model cannot act. So each of the agent's messages is rendered, written by the engine and parsed as always, then
thrown away for what the scripted expert says in its place: every rollout goes through its tools and its checks.
"""

from __future__ import annotations

import contextvars
import dataclasses
import functools
import inspect
import json
import sys
import threading
import time
import types
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Generator
from pathlib import Path
from typing import Any, cast

import psutil
import ray
from saturation_requests import Sent, cpu_here, length_of, load, report, save, since, teacher, tell, turns, warm_up
from throughput import writer

from tracemill import cluster, job, pipeline
from tracemill.config import Config
from tracemill.generators.environments.base import Environment
from tracemill.generators.teachers import model
from tracemill.generators.teachers.base import Reply, Request, Teacher
from tracemill.generators.teachers.chat import Ask
from tracemill.generators.teachers.family import Family
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.generators.teachers.vllm import VllmChat
from tracemill.job import Generation

CALL = '\n<tool_call>\n{"name": "get_jar", "arguments": {"jar_id": "J-101"}}\n</tool_call>'
CLOCKED: dict[str, list[tuple[Any, str]]] = {
    "draw scenario": [(pipeline, "scenario")],
    "render": [(Family, "render")],
    "parse": [(Family, "read")],
    "judge reply": [(model, "_agent_reply")],
    "ask the engine": [(VllmChat, "_generate")],
    "tools": [(Environment, "call")],
    "inspect": [(pipeline, "inspect")],
    "expert": [(ScriptedTeacher, "reply")],
    "mill": [(pipeline.Pipeline, "mill")],
}
"""What is measured in the actor; `ask the engine` holds `render`, and `mill` holds all."""


class HeavyTailed(VllmChat):
    """Replies of a length that follows from the ask's seed."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.sent: list[Sent] = []
        self.scenario: contextvars.ContextVar[int] = contextvars.ContextVar("scenario")
        """The index of the one that asks."""
        self.cpu = (0.0, 0.0)
        """When the first request was sent."""

    async def start(self) -> None:
        await super().start()
        await warm_up(self._engine)
        self._engine.generate = self._recorded(self._engine.generate)

    def _params(self, ask: Ask, room: int) -> Any:
        params = super()._params(ask, room)
        params.max_tokens = min(length_of(ask.seed), room)
        params.ignore_eos = True
        return params

    def _recorded(self, generate: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
        async def recorded(prompt: Any, params: Any, **rest: Any) -> AsyncIterator[Any]:
            if not self.sent:
                self.cpu = cpu_here()
            ids = list(prompt["prompt_token_ids"])
            one = Sent(self.scenario.get(), ids, params.max_tokens, params.seed, params.temperature, time.monotonic())
            self.sent.append(one)
            async for output in generate(prompt, params, **rest):
                yield output
                one.ended = time.monotonic()
                written = output.outputs[0]
                assert len(written.token_ids) == one.length
                # As a model that can act would have ended it: else the first thing that is wrong with it saves all other checks.
                written.text = model.UNWRITABLE.sub("", written.text.replace("\N{REPLACEMENT CHARACTER}", "")) + CALL
                written.finish_reason = "stop"

        return recorded


class Understudy:
    """Has the model write, and says what the expert would."""

    def __init__(self, model: Teacher, scenario: contextvars.ContextVar[int]) -> None:
        self._model = model
        self._scenario = scenario
        self._expert = ScriptedTeacher()

    @property
    def name(self) -> str:
        return self._model.name

    async def start(self) -> None:
        await self._model.start()

    async def close(self) -> None:
        await self._model.close()

    async def reply(self, request: Request) -> Reply:
        self._scenario.set(request.scenario.index)
        written = await self._model.reply(request)
        said = await self._expert.reply(request)
        return dataclasses.replace(said, usage=written.usage)


# The actor is subclassed, and the subclass put in its place, since the driver makes its actors itself and a config cannot
# ask for a teacher that is half a model and half scripted. All that it inherits runs as it does for everyone.
Miller: Any = cast("Any", cluster.Miller).__ray_metadata__.modified_class


class Watched(Miller):  # type: ignore[misc]
    """Tells its folder what its engine was asked, and where its own time went."""

    folder: Path

    def __init__(self, work: Generation, concurrency: int, actors: int) -> None:
        self._spent: dict[str, float] = defaultdict(float)
        self._calls: Counter[str] = Counter()
        for name, places in CLOCKED.items():
            for owner, attribute in places:
                setattr(owner, attribute, self._clocked(name, getattr(owner, attribute)))
        job.pack = self._clocked("pack", job.pack)
        super().__init__(work, concurrency, actors)
        self._chat = HeavyTailed(work.config.teacher, concurrency=concurrency)
        self._mill._agent._chat = self._chat
        self._mill._agent = Understudy(self._mill._agent, self._chat.scenario)

    async def begin(self) -> None:
        await super().begin()
        self._spent.clear()
        self._calls.clear()
        self._loop = threading.get_native_id()
        self._threads = threads()

    async def drop(self) -> None:
        cpu = since(self._chat.cpu)
        used = {thread: seconds - self._threads.get(thread, 0.0) for thread, seconds in threads().items()}
        loop = used.pop(self._loop)
        pool = sum(used.pop(one.native_id or 0, 0.0) for one in threading.enumerate() if one.name.startswith("ThreadPool"))
        clocks = {"event loop": loop, "threads of the renderer": pool, "other threads": sum(used.values()), **self._spent}
        save(self._chat.sent, self.folder / "sent.json")
        (self.folder / "actor.json").write_text(json.dumps({"cpu": cpu, "spent": clocks, "calls": self._calls}))
        await super().drop()

    def _clocked(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same, counting the CPU time of its own steps in this thread: not what it waits for."""

        @functools.wraps(function)
        def sync(*given: Any, **named: Any) -> Any:
            begun = time.thread_time()
            try:
                return function(*given, **named)
            finally:
                self._calls[name] += 1
                self._spent[name] += time.thread_time() - begun

        @functools.wraps(function)
        async def asynchronous(*given: Any, **named: Any) -> Any:
            self._calls[name] += 1
            return await self._stepped(name, function(*given, **named))

        return asynchronous if inspect.iscoroutinefunction(function) else sync

    @types.coroutine
    def _stepped(self, name: str, work: Any) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = functools.partial(work.send, None)
        while True:
            begun = time.thread_time()
            try:
                awaited = step()
            except StopIteration as end:
                return end.value
            finally:
                self._spent[name] += time.thread_time() - begun
            try:
                step = functools.partial(work.send, (yield awaited))
            except BaseException as thrown:
                step = functools.partial(work.throw, thrown)


def threads() -> dict[int, float]:
    """CPU seconds of each thread of this process."""
    return {one.id: one.user_time + one.system_time for one in psutil.Process().threads()}


def main() -> None:
    Watched.folder = folder = Path(sys.argv[1])
    asked = json.loads((folder / "asked.json").read_text())
    config = Config(
        teacher=teacher(folder / "tiny-qwen3"),
        environments={asked["environment"]: 1.0},
        kinds={"tool_call": 1.0},
        concurrency=asked["concurrency"],
        accept=asked["rollouts"],
    )
    sink = writer(config, folder / "run")
    full = 0.0
    driver = [0.0, 0.0]

    def look(in_flight: int) -> None:
        nonlocal full
        if in_flight and not driver[0]:
            driver[0] = time.process_time()
        if sink.full:
            full, driver[1] = time.monotonic(), time.process_time()

    cluster.start(cpus=2)
    cast("Any", cluster).Miller = ray.remote(max_restarts=0, max_task_retries=0)(Watched)
    ending = cluster.run(Generation(config), sink, actors=1, on_progress=look)
    assert ending == "complete" and not sink.tally.rejected, (ending, sink.tally)
    closing = time.monotonic()
    sink.close()
    closing = time.monotonic() - closing
    ray.shutdown()
    sent = load(folder / "sent.json")
    for one in sent:
        if one.ended and one.ended > full:
            one.ended = None  # nobody waited for it any more
    save(sent, folder / "sent.json")
    assert sink.tally.completion_tokens <= sum(one.length for one in sent if one.ended), "an actor died, and took its figures with it"
    actor = json.loads((folder / "actor.json").read_text())
    last_opened = max(one.begun for one in turns(sent)[0])
    tell(folder, report(sent, until=full, steady=last_opened, closing=closing, driver=driver[1] - driver[0], **actor))


if __name__ == "__main__":
    main()
