"""An OpenAI-compatible endpoint that says the same after a fixed time, as cheaply as plain asyncio can.

    python endpoint.py LATENCY_SECONDS

Prints the port it listens on, and `first` when the first request of a row has come. `GET /v1/seen` tells what has come by
then: the `time.monotonic()` of that first request, how many requests there were, and how many were in flight at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from peer_task import ANSWER, MARK, MODEL

_MARK = MARK.encode()


def _http(body: object) -> bytes:
    text = json.dumps(body).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text)


MODELS = _http({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "bench"}]})


def _completion(message: dict[str, Any], ended: str) -> bytes:
    return _http(
        {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [{"index": 0, "message": {"role": "assistant", **message}, "logprobs": None, "finish_reason": ended}],
            "usage": {"prompt_tokens": 30, "completion_tokens": 30, "total_tokens": 60},
        }
    )


TEXT = _completion({"content": json.dumps(ANSWER)}, "stop")
CALL = _completion(
    {
        "content": None,
        "tool_calls": [{"id": "call_0", "type": "function", "function": {"name": "Row", "arguments": json.dumps(ANSWER)}}],
    },
    "tool_calls",
)
"""For who asks for structure by way of a tool named Row."""
PROBE = _completion({"content": json.dumps({"name": "Jason", "age": 25})}, "stop")
"""What Curator wants to hear before it believes that an endpoint holds to a schema."""


class Seen:
    first: float | None = None
    rows = 0
    others = 0
    in_flight = 0
    most_in_flight = 0


class Connection(asyncio.Protocol):
    """Requests with a content-length, one after another."""

    def __init__(self, seen: Seen, latency: float) -> None:
        self._seen = seen
        self._latency = latency
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            _, _, length = head.partition(b"content-length:")
            size = end + 4 + int(length.split(b"\r\n", 1)[0] or 0)
            if len(self._buffer) < size:
                return
            body, self._buffer = self._buffer[end + 4 : size], self._buffer[size:]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        close = b"connection: close" in head
        if head.startswith(b"get /v1/seen"):
            self._send(_http({name: getattr(self._seen, name) for name in ("first", "rows", "others", "most_in_flight")}), close)
        elif head.startswith(b"get"):
            self._send(MODELS, close)
        elif _MARK not in body:
            self._seen.others += 1
            self._send(PROBE, close)
        else:
            self._begin()
            answer = CALL if b'"tools"' in body else TEXT
            asyncio.get_running_loop().call_later(self._latency, self._finish, answer, close)

    def _begin(self) -> None:
        seen = self._seen
        if seen.first is None:
            seen.first = time.monotonic()
            print("first", flush=True)
        seen.rows += 1
        seen.in_flight += 1
        seen.most_in_flight = max(seen.most_in_flight, seen.in_flight)

    def _finish(self, answer: bytes, close: bool) -> None:
        self._seen.in_flight -= 1
        self._send(answer, close)

    def _send(self, answer: bytes, close: bool) -> None:
        self._transport.write(answer)
        if close:
            self._transport.close()


async def serve(latency: float) -> None:
    seen = Seen()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(seen, latency), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(float(sys.argv[1])))
