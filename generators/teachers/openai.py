"""A model behind an endpoint that speaks the OpenAI chat API: OpenAI itself, vLLM, SGLang, llama.cpp, a gateway.

Endpoints refuse, stall, break off and answer nonsense; what may pass is tried again, what cannot is said at once in
the endpoint's own words, and how many requests are in flight follows from what it bears.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import math
import os
import random
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import mktime_tz, parsedate_tz
from typing import TypeVar

import aiohttp
from yarl import URL

from tracemill.config import EndpointConfig
from tracemill.errors import ConfigError, ContextTooLong, TeacherError
from tracemill.generators.teachers.chat import Ask, Completion, RawCall, wire_message
from tracemill.places import is_place, name_of
from tracemill.trace import Json, Usage, fingerprint

ANSWER_BYTES = 4 << 20
"""A longer answer is no answer."""
CONNECTING = 30.0
"""Seconds in which a connection must stand, and the list of the models must come."""
BACKOFF = 0.5
"""Seconds: the most that is waited before the first repetition. It doubles with each."""
LONGEST_BACKOFF = 60.0
LONGEST_RETRY_AFTER = 180.0
"""Seconds: no endpoint is obeyed for longer."""
BURST = 2.0
"""Seconds' worth of a limit that may be used at once after a pause."""

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]
T = TypeVar("T")

_PASSING = {408, 409, 425, 429}
_TOO_LONG = re.compile(
    r"context.?(length|window|size)|(prompt|input|conversation) (is|are) too long|longer than the (maximum model|model's) "
    r"|inputs?\W+tokens \+|token count\b.*\bexceeds|reduce the length of",
    re.IGNORECASE | re.DOTALL,
)


class Bucket:
    """A limit per minute, as a bucket that fills evenly; None is no limit.

    It holds what comes in `BURST` seconds. An amount that is larger than that waits for a full bucket and leaves it
    in debt, so that none has to wait for ever.
    """

    def __init__(self, per_minute: float | None, *, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep) -> None:
        self._rate = math.inf if per_minute is None else per_minute / 60
        self._size = self._level = self._rate * BURST
        self._clock, self._sleep = clock, sleep
        self._filled = clock()
        self._turn = asyncio.Lock()

    async def take(self, amount: float) -> None:
        """Waits until there is enough, first come, first served."""
        if self._rate == math.inf:
            return
        wanted = min(amount, self._size)
        async with self._turn:
            while (missing := wanted - self._fill()) > 1e-9 * wanted:
                await self._sleep(min(missing / self._rate, BURST / 8))  # short, as something may be given back meanwhile
            self._level -= amount

    def give_back(self, amount: float) -> None:
        """What was taken and not used; negative if more was used."""
        if self._rate != math.inf:
            self._level = self._fill() + amount

    def _fill(self) -> float:
        now = self._clock()
        self._level = min(self._level + (now - self._filled) * self._rate, self._size)
        self._filled = now
        return self._level


class Gate:
    """How many requests are in flight: one more after each round of successes, half as many after a refusal.

    A round ends with a refusal: those that were sent before it and are refused later tell nothing new.
    """

    def __init__(self, most: int, *, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep) -> None:
        self._most = float(most)
        self.limit = self._most
        self.round = 0
        self.inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._opens = -math.inf
        self._clock, self._sleep = clock, sleep

    async def __aenter__(self) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._admit()
        try:
            await turn
            while (wait := self._opens - self._clock()) > 0:
                await self._sleep(wait)
        except BaseException:
            if turn.done() and not turn.cancelled():  # it was let in, and will not come
                self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._leave()

    def passed(self) -> None:
        self.limit = min(self.limit + 1 / self.limit, self._most)
        self._admit()

    def refused(self, sent: int, pause: float) -> None:
        """A request of the round `sent` was refused: nothing is let in for `pause` seconds."""
        self._opens = max(self._opens, self._clock() + pause)
        if sent == self.round:
            self.round += 1
            self.limit = max(self.limit / 2, 1.0)

    def _leave(self) -> None:
        self.inside -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.inside < int(self.limit):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self.inside += 1


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why an attempt gave nothing."""

    reason: str
    status: int = 0
    """Of HTTP; 0 if there was no answer."""
    wait: float | None = None
    """Seconds after which the endpoint wants to be asked again."""
    lasting: bool = False
    """To ask again would be no use."""
    too_long: bool = False
    """The conversation does not fit."""


class OpenAIChat:
    """One endpoint, seen from one actor, which may use `share` of its limits and `concurrency` requests at once."""

    def __init__(
        self,
        config: EndpointConfig,
        *,
        share: float = 1.0,
        concurrency: int = 256,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Raises ConfigError for an URL that is none, or that holds credentials, which would show up in messages."""
        self._config = config
        self._url = _checked(config.url)
        self.name = self._served = config.model or self._url
        self._gate = Gate(concurrency, clock=clock, sleep=sleep)
        self._requests = Bucket(_part(config.requests_per_minute, share), clock=clock, sleep=sleep)
        self._tokens = Bucket(_part(config.tokens_per_minute, share), clock=clock, sleep=sleep)
        self._clock, self._sleep = clock, sleep
        self._key = ""
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Raises ConfigError for a key or a model that the endpoint does not take, TeacherError if it cannot be reached."""
        self._key = os.environ.get(self._config.key_env, "").strip()
        if not self._key.isprintable():
            raise ConfigError(f"the environment variable {self._config.key_env} holds characters that no key has, such as a line break")
        self._session = aiohttp.ClientSession(
            # no longer than uvicorn keeps an idle connection: what is sent just as it closes one is lost
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=4),
            headers={"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        try:
            self._served = await self._model()
        except BaseException:
            await self.close()
            raise
        # records hold the name and go out, and a server may call a model by the folder that it has it from
        self.name = name_of(self._served) if is_place(self._served) else self._served

    @property
    def identity(self) -> dict[str, Json]:
        """What tells the model from another, once it is started: of address and folder the fingerprint alone, as this is recorded."""
        return {"name": self.name, "address": fingerprint(self._url), "served": fingerprint(self._served)}

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def complete(self, ask: Ask) -> Completion:
        """Raises TeacherError when the endpoint will not answer this, or has not after all repetitions."""
        body = self._body(ask)
        estimate = len(body) / 4 + ask.sampling.max_tokens
        outcome = await self._keep_trying(lambda: self._attempt(body, estimate))
        if isinstance(outcome, Trouble):
            raise (ContextTooLong if outcome.too_long else TeacherError)(outcome.reason)
        return outcome

    # --- which model ---

    async def _model(self) -> str:
        """The name of the model: as configured, if it is listed; the only one listed, if none is configured."""
        listing = await self._keep_trying(lambda: self._send("GET", "/models", timeout=min(self._config.timeout, CONNECTING)))
        if isinstance(listing, Trouble):
            return self._unlisted(listing)
        wanted, names = self._config.model, _names(listing)
        if wanted is None and len(names) == 1:
            return names[0]
        if wanted is None:
            raise ConfigError(f"model: {self._url} has {len(names)} models; give the name of one", _first(names, 40))
        if names and wanted not in names:
            near = difflib.get_close_matches(wanted, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(_first(names, 10))}"
            raise ConfigError(f"model: {self._url} has no model {wanted!r}; {hint}")
        return wanted

    def _unlisted(self, trouble: Trouble) -> str:
        if trouble.status in (401, 403):
            state = "holds a key that it does not take" if self._key else "is not set"
            raise ConfigError(f"{self._url} wants a key: the environment variable {self._config.key_env} {state} ({trouble.reason})")
        if trouble.status in (404, 405):  # it may have none of the API but the chat
            if self._config.model:
                return self._config.model
            raise ConfigError(f"url: {self._url} lists no models; give the name of one, or check the URL, which mostly ends in /v1")
        kind = ConfigError if trouble.lasting else TeacherError
        raise kind(
            f"{self._url} cannot be used: {trouble.reason}; check that the server is up, that the URL is right (it mostly "
            "ends in /v1), and that no proxy or firewall stands in between"
        )

    # --- one request ---

    def _body(self, ask: Ask) -> bytes:
        key = self._config.reasoning_key
        body: dict[str, Json] = {
            "model": self._served,
            "messages": [wire_message(message, text_arguments=True, reasoning_key=key) for message in ask.messages],
            "temperature": ask.sampling.temperature,
            "top_p": ask.sampling.top_p,
            "max_tokens": ask.sampling.max_tokens,
            "seed": ask.seed % 2**31,  # some endpoints take no more than 32 bits
        }
        if ask.tools:
            body["tools"] = [tool.plain() for tool in ask.tools]
        if ask.schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "reply", "schema": ask.schema, "strict": True}}
        if self._config.template_kwargs:
            body["chat_template_kwargs"] = self._config.template_kwargs
        return _mended(json.dumps(body, ensure_ascii=False, separators=(",", ":"))).encode()

    async def _keep_trying(self, attempt: Callable[[], Awaitable[T | Trouble]]) -> T | Trouble:
        """What an attempt gives, or why it gives nothing, or why the last of all gave nothing."""
        begun, repeated = self._clock(), 0
        while True:
            outcome = await attempt()
            if not isinstance(outcome, Trouble) or outcome.lasting:
                return outcome
            if repeated == self._config.retries:
                tried = f"{repeated + 1} attempt{'s' if repeated else ''} over {self._clock() - begun:.1f} s"
                return replace(outcome, reason=f"no reply in {tried}; the last: {outcome.reason}")
            await self._sleep(_delay(repeated, outcome.wait))
            repeated += 1

    async def _attempt(self, body: bytes, estimate: float) -> Completion | Trouble:
        async with self._gate:
            await self._requests.take(1)
            await self._tokens.take(estimate)
            sent = self._gate.round
            answer = await self._send("POST", "/chat/completions", body, timeout=self._config.timeout)
            outcome = answer if isinstance(answer, Trouble) else self._understood(answer)
            if isinstance(outcome, Completion):
                self._gate.passed()
                if used := outcome.usage.prompt_tokens + outcome.usage.completion_tokens:
                    self._tokens.give_back(estimate - used)
            elif outcome.status == 429:
                self._gate.refused(sent, BACKOFF if outcome.wait is None else outcome.wait)
        return outcome

    def _understood(self, answer: Json) -> Completion | Trouble:
        return read_completion(answer) or Trouble(f"there is no message in the answer: {self._quoted(_message(answer))}", 200)

    async def _send(self, method: str, path: str, body: bytes | None = None, *, timeout: float) -> Json | Trouble:  # noqa: ASYNC109
        """The JSON of the answer. Errors become values here: those of aiohttp hold the request, and with it the key."""
        assert self._session is not None, "start() comes first"
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=min(timeout, CONNECTING))
        try:
            async with self._session.request(method, self._url + path, data=body, timeout=limits, allow_redirects=False) as answer:
                return self._judged(answer.status, answer.headers, await _read(answer.content))
        except TimeoutError:
            return Trouble(f"no answer within {timeout:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Trouble(f"the connection failed ({self._quoted(_told(error))})")

    def _judged(self, status: int, headers: Mapping[str, str], body: bytes) -> Json | Trouble:
        if len(body) > ANSWER_BYTES:
            return Trouble(f"the endpoint answered {status} with more than {ANSWER_BYTES >> 20} MiB", status)
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = body.decode(errors="replace")
        if 200 <= status < 300:
            return Trouble(f"the answer is no JSON object: {self._quoted(answer)}", status) if isinstance(answer, str) else answer
        said = self._quoted(_message(answer))
        if status in _PASSING or status >= 500:
            return Trouble(f"the endpoint answered {status}: {said}", status, _retry_after(headers))
        if 300 <= status < 400:
            said = f"it redirects to {self._quoted(headers.get('Location', 'nowhere'))}; set url to that"
        elif status in (400, 413, 422) and _TOO_LONG.search(said):
            return Trouble(f"the conversation is longer than {self.name} can take: {said}", status, lasting=True, too_long=True)
        return Trouble(f"the endpoint answered {status}: {said}", status, lasting=True)

    def _quoted(self, text: str) -> str:
        """At most 500 characters on one line, without the key; shorter than six characters it is only a stand-in for one.

        Without the endpoint's host too: what is said here comes into the ledger, and the ledger goes out.
        """
        text = text.replace(self._key, "[key]") if len(self._key) >= 6 else text
        text = text.replace(URL(self._url).authority, "[host]")
        return " ".join(_mended(text).split())[:500] or "(nothing)"


def read_completion(answer: Json) -> Completion | None:
    """What can be made out of an answer, whatever is missing or of another type; None if there is no message in it."""
    message = _at(answer, "choices", 0, "message")
    if not isinstance(message, dict):
        return None
    calls = _at(message, "tool_calls")
    return Completion(
        text=_text(_at(message, "content")) or _text(_at(message, "refusal")),
        reasoning=_text(_at(message, "reasoning_content")) or _text(_at(message, "reasoning")) or None,
        calls=tuple(_call(call) for call in calls if isinstance(_at(call, "function"), dict)) if isinstance(calls, list) else (),
        usage=Usage(
            prompt_tokens=_count(_at(answer, "usage", "prompt_tokens")),
            completion_tokens=_count(_at(answer, "usage", "completion_tokens")),
        ),
        cut=_at(answer, "choices", 0, "finish_reason") == "length",
    )


def _call(call: Json) -> RawCall:
    arguments = _at(call, "function", "arguments")
    if arguments is None or arguments == "":  # how some write that there are none
        arguments = {}
    return RawCall(_text(_at(call, "function", "name")), _as_text(arguments))


def _text(value: Json) -> str:
    """A text, or the text of a list of parts; empty for anything else."""
    if isinstance(value, list):
        texts = [part if isinstance(part, str) else _at(part, "text") for part in value]
        return "".join(text for text in texts if isinstance(text, str))
    return value if isinstance(value, str) else ""


def _as_text(value: Json) -> str:
    """A text as it is, anything else as JSON."""
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except RecursionError:
        return "(nested too deeply)"


def _count(value: Json) -> int:
    return value if type(value) is int and 0 <= value < 2**31 else 0


def _at(value: Json, *path: str | int) -> Json:
    """What stands at the path; None if it leads nowhere."""
    for step in path:
        try:
            value = value[step]
        except (LookupError, TypeError):
            return None
    return value


def _names(listing: Json) -> list[str]:
    """Of the models in an answer of /models. Some endpoints give the bare list."""
    models = listing if isinstance(listing, list) else _at(listing, "data")
    return [name for model in models if isinstance(name := _at(model, "id"), str)] if isinstance(models, list) else []


def _first(names: list[str], number: int) -> list[str]:
    return names if len(names) <= number else [*names[:number], f"and {len(names) - number} more"]


def _message(answer: Json) -> str:
    """What an error says, with its code, wherever the endpoint puts it."""
    error = _at(answer, "error") or answer
    said = next((found for key in ("message", "detail") if (found := _at(error, key))), error)
    code = _at(error, "code")
    return f"{_as_text(said)} ({code})" if isinstance(code, str) else _as_text(said)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, where the endpoint says so: `retry-after-ms`, or `Retry-After` in seconds or as a date (RFC 9110)."""
    for name, unit in (("retry-after-ms", 1000), ("Retry-After", 1)):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"[0-9]+(\.[0-9]*)?", value):
            return min(float(value) / unit, LONGEST_RETRY_AFTER)
    try:
        date = parsedate_tz(value)
        return min(max(mktime_tz(date) - time.time(), 0.0), LONGEST_RETRY_AFTER) if date else None
    except (ValueError, OverflowError):
        return None


def _delay(number: int, asked: float | None) -> float:
    """Seconds before repetition `number`, from 0: as asked for, else exponential backoff with full jitter."""
    if asked is not None:
        return asked + random.uniform(0, BACKOFF)
    return random.uniform(0, min(BACKOFF * 2**number, LONGEST_BACKOFF))


async def _read(content: aiohttp.StreamReader) -> bytes:
    """The body, or its beginning if that is more than may be kept."""
    body = bytearray()
    async for part in content.iter_any():
        body += part
        if len(body) > ANSWER_BYTES:
            break
    return bytes(body)


def _told(error: Exception) -> str:
    """Of an error of the connection its type and the system's words. aiohttp's own hold the address."""
    number = getattr(error, "errno", None)
    why = error.message if isinstance(error, aiohttp.ClientResponseError) else os.strerror(number) if number and number > 0 else ""
    return f"{type(error).__name__}: {why}" if why else type(error).__name__


def _mended(text: str) -> str:
    """The text with U+FFFD for lone surrogates, which UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _checked(url: str) -> str:
    try:
        parsed = URL(url)
    except ValueError as reason:
        raise ConfigError(f"url: {reason}") from None
    if parsed.user or parsed.password:
        raise ConfigError("url: it holds a user name or a password; put the key into an environment variable (key_env) instead")
    return url.rstrip("/")


def _part(limit: float | None, share: float) -> float | None:
    return None if limit is None else limit * share
