"""A fake of an endpoint that speaks the OpenAI chat API, on the loopback, which misbehaves on demand."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

from aiohttp import web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakeEndpoint:
    """Answers each request with the next of the planned answers, and as it should (`say`) when none is left.

    Use it as an asynchronous context manager. `requests` holds the bodies of the chat requests as they came.
    """

    def __init__(self, *, models: tuple[str, ...] = ("fake-1",), say: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> None:
        self.models: Any = models
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Mapping[str, str]] = []
        self.listings = 0
        self.most_in_flight = 0
        self._say = say or (lambda _: completion("Hello."))
        self._in_flight = 0
        self._arrival = asyncio.Condition()
        self._plan: deque[Answer] = deque()
        self._listing_plan: deque[Answer] = deque()

    def plan(self, *answers: Answer) -> None:
        """For the next chat requests, one each."""
        self._plan.extend(answers)

    def plan_listing(self, *answers: Answer) -> None:
        """For the next requests of /models, one each."""
        self._listing_plan.extend(answers)

    async def reached(self, number: int) -> None:
        """Waits until so many chat requests have come."""
        async with self._arrival:
            await self._arrival.wait_for(lambda: len(self.requests) >= number)

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _models(self, request: web.Request) -> web.StreamResponse:
        self.listings += 1
        self.headers.append(request.headers)
        if self._listing_plan:
            return await self._listing_plan.popleft()(request)
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in self.models]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            body = await request.json()
            self.requests.append(body)
            self.headers.append(request.headers)
            async with self._arrival:
                self._arrival.notify_all()
            if self._plan:
                return await self._plan.popleft()(request)
            return web.json_response(self._say(body))
        finally:
            self._in_flight -= 1


def completion(text: str | None, *, finish: str = "stop", usage: tuple[int, int] = (11, 7), **message: Any) -> dict[str, Any]:
    """An answer as it should be."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "fake-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": finish}],
        "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)},
    }


# --- answers to plan ---


def answer(body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    async def respond(_: web.Request) -> web.StreamResponse:
        return web.json_response(body, status=status, headers=headers)

    return respond


def error(status: int, message: str = "no", *, code: str | None = None, **headers: str) -> Answer:
    """As OpenAI words errors. Headers are named with underscores: `Retry_After="7"`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return answer({"error": {"message": message, "type": "fake", "code": code}}, status=status, headers=named)


def body(content: bytes, *, status: int = 200) -> Answer:
    """Any bytes, said to be JSON."""

    async def respond(_: web.Request) -> web.StreamResponse:
        return web.Response(body=content, status=status, content_type="application/json")

    return respond


def raw(content: bytes) -> Answer:
    """Any bytes in the place of an HTTP answer; none at all is a connection that is cut."""

    async def respond(request: web.Request) -> web.StreamResponse:
        transport = request.transport
        assert transport is not None
        transport.write(content)
        await asyncio.sleep(0)
        transport.close()
        return web.Response()

    return respond


def cut_in_body() -> Answer:
    """The connection is cut when half of what was announced is sent."""
    whole = json.dumps(completion("Hello.")).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(whole)}\r\n\r\n"
    return raw(head.encode() + whole[: len(whole) // 2])


def never() -> Answer:
    async def respond(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    return respond


def drip(every: float = 1.0) -> Answer:
    """A proper answer, a byte each `every` seconds."""

    async def respond(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        for byte in json.dumps(completion("Hello.")).encode():
            await response.write(bytes([byte]))
            await asyncio.sleep(every)
        return response

    return respond


def after(gate: asyncio.Event, then: Answer) -> Answer:
    """Answers when the event is set."""

    async def respond(request: web.Request) -> web.StreamResponse:
        await gate.wait()
        return await then(request)

    return respond
