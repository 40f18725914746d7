"""The client of OpenAI-compatible endpoints, against a fake that misbehaves."""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate
from typing import Any

import pytest
from fake_endpoint import Answer, FakeEndpoint, after, answer, body, completion, cut_in_body, drip, error, never, raw

from tracemill.config import EndpointConfig
from tracemill.errors import ConfigError, TeacherError
from tracemill.generators.teachers.chat import Ask, Completion, RawCall, Sampling
from tracemill.generators.teachers.openai import LONGEST_RETRY_AFTER, Bucket, Gate, OpenAIChat, read_completion
from tracemill.trace import (
    AssistantMessage,
    FunctionCall,
    FunctionSpec,
    Message,
    OfferedTool,
    SystemMessage,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)

KEY = "sk-very-secret-0123456789"


class FakeTime:
    """A clock that only sleeping moves on."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_KEY", KEY)


@pytest.fixture
async def endpoint() -> AsyncIterator[FakeEndpoint]:
    async with FakeEndpoint() as one:
        yield one


@pytest.fixture
def at() -> FakeTime:
    return FakeTime()


@pytest.fixture
async def chat(endpoint: FakeEndpoint, at: FakeTime) -> AsyncIterator[Callable[..., Any]]:
    """Makes started clients of the endpoint, which wait by a fake clock."""
    made: list[OpenAIChat] = []

    async def make(concurrency: int = 256, share: float = 1.0, **settings: Any) -> OpenAIChat:
        made.append(client(endpoint.url, at, concurrency=concurrency, share=share, **settings))
        await made[-1].start()
        return made[-1]

    yield make
    for one in made:
        await one.close()


def client(url: str, at: FakeTime, *, concurrency: int = 256, share: float = 1.0, **settings: Any) -> OpenAIChat:
    config = EndpointConfig(**{"url": url, "key_env": "FAKE_KEY", "retries": 3, "timeout": 20.0, **settings})
    return OpenAIChat(config, share=share, concurrency=concurrency, clock=at.clock, sleep=at.sleep)


def hasty(chat: OpenAIChat) -> OpenAIChat:
    """Gives up soon; made so after the start, which may take long on a busy machine."""
    chat._config = chat._config.model_copy(update={"timeout": 0.3})
    return chat


def ask(*messages: Message, **more: Any) -> Ask:
    return Ask(**{"messages": messages or (UserMessage(content="Hi"),), "sampling": Sampling(0.5, 64), "seed": 7, **more})


async def refusal_of(chat: OpenAIChat, wanted: Ask | None = None) -> str:
    with pytest.raises(TeacherError) as caught:
        await chat.complete(wanted or ask())
    return str(caught.value)


# --- what is sent ---


async def test_an_ask_is_sent_in_the_format_of_the_chat_api(chat: Any, endpoint: FakeEndpoint) -> None:
    one = await chat(template_kwargs={"enable_thinking": False}, reasoning_key="reasoning")
    tool = OfferedTool(function=FunctionSpec(name="look", description="Looks.", parameters={"type": "object"}))
    call = ToolCall(id="call_1", function=FunctionCall(name="look", arguments={"b": 1, "a": None}))
    messages = (
        SystemMessage(content="Be good."),
        UserMessage(content="Hi"),
        AssistantMessage(content="", reasoning_content="hm", tool_calls=(call,), train=False),
        ToolMessage(tool_call_id="call_1", name="look", content="{}"),
    )
    schema = {"type": "object"}
    await one.complete(ask(*messages, tools=[tool], schema=schema, sampling=Sampling(0.5, 64, 0.9), seed=2**40 + 5))
    call_text = endpoint.requests[0]["messages"][2]["tool_calls"][0]["function"]["arguments"]
    assert json.loads(call_text) == {"a": None, "b": 1}
    assert endpoint.requests == [
        {
            "model": "fake-1",
            "messages": [
                {"role": "system", "content": "Be good."},
                {"role": "user", "content": "Hi"},
                {
                    "role": "assistant",
                    "content": "",
                    "reasoning": "hm",
                    "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "look", "arguments": call_text}}],
                },
                {"role": "tool", "tool_call_id": "call_1", "name": "look", "content": "{}"},
            ],
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": 64,
            "seed": 5,
            "tools": [tool.plain()],
            "response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema, "strict": True}},
            "chat_template_kwargs": {"enable_thinking": False},
        }
    ]


async def test_what_is_not_asked_for_is_not_sent(chat: Any, endpoint: FakeEndpoint) -> None:
    await (await chat()).complete(ask(AssistantMessage(content="So.", reasoning_content="hm")))
    assert set(endpoint.requests[0]) == {"model", "messages", "temperature", "top_p", "max_tokens", "seed"}
    assert endpoint.requests[0]["messages"] == [{"role": "assistant", "content": "So."}]


async def test_the_key_goes_into_the_header_and_nowhere_else(chat: Any, endpoint: FakeEndpoint) -> None:
    await (await chat()).complete(ask())
    assert [headers["Authorization"] for headers in endpoint.headers] == [f"Bearer {KEY}"] * 2
    assert KEY not in json.dumps(endpoint.requests)


async def test_without_a_key_there_is_no_header(chat: Any, endpoint: FakeEndpoint) -> None:
    await (await chat(key_env="NO_SUCH_KEY")).complete(ask())
    assert not any("Authorization" in headers for headers in endpoint.headers)


async def test_half_of_a_surrogate_pair_is_sent_as_a_replacement(chat: Any, endpoint: FakeEndpoint) -> None:
    await (await chat()).complete(ask(UserMessage(content="a\ud800b"), UserMessage(content="\udc00"), UserMessage(content="\ud83d\ude00é")))
    assert [message["content"] for message in endpoint.requests[0]["messages"]] == ["a\ufffdb", "\ufffd", "😀é"]


# --- what is read ---


async def test_an_answer_is_read_whole(chat: Any, endpoint: FakeEndpoint) -> None:
    one = await chat()
    calls = [{"id": "x", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}]
    endpoint.plan(answer(completion("Look.", finish="length", usage=(30, 5), tool_calls=calls, reasoning_content="hm")))
    assert await one.complete(ask()) == Completion(
        "Look.", "hm", (RawCall("look", '{"a": 1}'),), Usage(prompt_tokens=30, completion_tokens=5), cut=True
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({}, Completion("")),
        ({"content": None, "tool_calls": None, "reasoning": "hm"}, Completion("", "hm")),
        ({"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"text": 3}, None, "b"]}, Completion("ab")),
        ({"content": 17, "reasoning_content": {"a": 1}, "tool_calls": "look"}, Completion("")),
        ({"content": {"text": "a"}, "tool_calls": {"function": {}}}, Completion("")),
        ({"content": None, "refusal": "I cannot."}, Completion("I cannot.")),
        ({"tool_calls": [None, 3, "look", {}, {"function": None}, {"function": {}}]}, Completion("", calls=(RawCall("", "{}"),))),
        ({"tool_calls": [{"function": {"name": 3, "arguments": {"a": "é"}}}]}, Completion("", calls=(RawCall("", '{"a": "\\u00e9"}'),))),
        ({"tool_calls": [{"function": {"name": "f", "arguments": ""}}]}, Completion("", calls=(RawCall("f", "{}"),))),
        ({"tool_calls": [{"function": {"name": "f", "arguments": [1]}}]}, Completion("", calls=(RawCall("f", "[1]"),))),
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{not"}}]}, Completion("", calls=(RawCall("f", "{not"),))),
    ],
)
def test_wrong_types_in_a_message_count_as_nothing(message: dict[str, Any], expected: Completion) -> None:
    assert read_completion({"choices": [{"message": message}]}) == expected


@pytest.mark.parametrize(
    "usage", [None, 3, [], {}, {"prompt_tokens": None}, {"prompt_tokens": -1}, {"prompt_tokens": "9"}, {"prompt_tokens": True}]
)
def test_a_wrong_usage_counts_as_none(usage: Any) -> None:
    assert read_completion({"choices": [{"message": {"content": "a"}, "finish_reason": 3}], "usage": usage}) == Completion("a")


@pytest.mark.parametrize(
    "wrong", [None, 3, "choices", [], {}, {"choices": None}, {"choices": "no"}, {"choices": []}, {"choices": {"0": 1}}]
)
def test_an_answer_without_a_message_is_none(wrong: Any) -> None:
    assert read_completion(wrong) is None


def test_arguments_that_are_nested_without_end_are_read() -> None:
    deep: Any = {}
    for _ in range(5000):
        deep = {"a": deep}
    found = read_completion({"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": deep}}]}}]})
    assert found is not None
    assert found.calls[0].name == "f"


# --- what may pass is tried again ---


def _answered(status: int) -> Any:
    return pytest.param(error(status), str(status), id=str(status))


TROUBLE = [
    *(_answered(status) for status in (408, 409, 425, 429, 500, 502, 503, 529)),
    pytest.param(raw(b""), "connection", id="cut before the answer"),
    pytest.param(cut_in_body(), "connection", id="cut in the body"),
    pytest.param(raw(b"\x00\xffwhat is this?\r\n\r\n"), "connection", id="bytes that are not HTTP"),
    pytest.param(body(b'{"choices": [{"message": {"con'), "JSON", id="JSON that breaks off"),
    pytest.param(body(b"\xff\xfe\x00\x01"), "JSON", id="bytes that are not JSON"),
    pytest.param(body(b"[" * 100_000), "JSON", id="JSON nested without end"),
    pytest.param(body(b'{"choices": [' + b" " * (10 << 20)), "MiB", id="a body of 10 MB"),
    pytest.param(answer({"error": {"message": "overloaded", "code": 502}}), "overloaded", id="an error under status 200"),
    pytest.param(answer({"choices": [{"message": "Hello."}]}), "no message", id="wrong types"),
    pytest.param(answer([1, 2]), "no message", id="a list"),
    pytest.param(answer("hello"), "JSON", id="a text"),
]


@pytest.mark.parametrize(("trouble", "reason"), TROUBLE)
async def test_what_may_pass_is_tried_again(chat: Any, endpoint: FakeEndpoint, trouble: Answer, reason: str) -> None:
    one = await chat(retries=2)
    endpoint.plan(trouble, trouble)
    assert (await one.complete(ask())).text == "Hello."
    assert len(endpoint.requests) == 3
    assert endpoint.requests[0] == endpoint.requests[2]


@pytest.mark.parametrize(("trouble", "reason"), TROUBLE)
async def test_when_all_attempts_fail_the_error_says_how_often_how_long_and_why(
    chat: Any, endpoint: FakeEndpoint, at: FakeTime, trouble: Answer, reason: str
) -> None:
    one = await chat(retries=2)
    endpoint.plan(*[trouble] * 3)
    begun = at.now
    said = await refusal_of(one)
    assert said.startswith(f"no reply in 3 attempts over {at.now - begun:.1f} s; the last: ")
    assert reason in said
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize("slow", [never(), drip()], ids=["never", "a byte a second"])
async def test_endless_slowness_ends(chat: Any, endpoint: FakeEndpoint, slow: Answer) -> None:
    one = hasty(await chat(retries=1))
    endpoint.plan(slow, slow)
    assert "2 attempts" in (said := await refusal_of(one))
    assert "no answer within 0.3 s" in said


async def test_without_retries_nothing_is_tried_again(chat: Any, endpoint: FakeEndpoint) -> None:
    one = await chat(retries=0)
    endpoint.plan(error(503))
    assert "no reply in 1 attempt over" in await refusal_of(one)
    assert len(endpoint.requests) == 1


async def test_the_waits_grow_and_are_drawn_at_random(
    chat: Any, endpoint: FakeEndpoint, at: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[float, float]] = []

    def the_most(low: float, high: float) -> float:
        drawn.append((low, high))
        return high

    monkeypatch.setattr("random.uniform", the_most)
    one = await chat(retries=9)
    endpoint.plan(*[error(500)] * 9)
    await one.complete(ask())
    assert at.slept == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert drawn == [(0, wait) for wait in at.slept]


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"Retry_After": "7"}, 7, 7.5),
        ({"Retry_After": "0"}, 0, 0.5),
        ({"Retry_After": "2.5"}, 2.5, 3),
        ({"Retry_After": "86400"}, LONGEST_RETRY_AFTER, LONGEST_RETRY_AFTER + 0.5),
        ({"Retry_After": "9" * 400}, LONGEST_RETRY_AFTER, LONGEST_RETRY_AFTER + 0.5),
        ({"Retry_After": "-3"}, 0, 0.5),
        ({"Retry_After": "soon"}, 0, 0.5),
        ({"Retry_After": "Wed, 21 Oct 99999 07:28:00 GMT"}, 0, 0.5),
        ({"Retry_After": "Wed, 21 Oct 99999999999999 07:28:00 GMT"}, 0, 0.5),
        ({"Retry_After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0, 0.5),
        ({"retry_after_ms": "1500", "Retry_After": "9"}, 1.5, 2),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_the_endpoint_says_how_long_to_wait(
    chat: Any, endpoint: FakeEndpoint, at: FakeTime, headers: dict[str, str], low: float, high: float, status: int
) -> None:
    one = await chat()
    endpoint.plan(error(status, **headers))
    begun = at.now
    await one.complete(ask())
    assert low <= at.now - begun <= high + 0.5  # a 429 without a wait also closes the gate


async def test_the_endpoint_may_say_it_with_a_date(chat: Any, endpoint: FakeEndpoint, at: FakeTime) -> None:
    one = await chat()
    endpoint.plan(error(429, Retry_After=formatdate(time.time() + 100, usegmt=True)))
    begun = at.now
    await one.complete(ask())
    assert 60 < at.now - begun < 101


# --- what cannot pass is said at once ---


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 413, 422])
async def test_what_cannot_pass_is_said_at_once(chat: Any, endpoint: FakeEndpoint, status: int) -> None:
    one = await chat()
    endpoint.plan(error(status, "the moon is full " + "x" * 9000, code="moon"))
    said = await refusal_of(one)
    assert said.startswith(f"the endpoint answered {status}: the moon is full xxx")
    assert len(said) < 550
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("answered", "words"),
    [
        ({"error": {"message": "bad moon"}}, "bad moon"),
        ({"error": {"message": "bad moon", "code": "moon"}}, "bad moon (moon)"),
        ({"error": "bad moon"}, "bad moon"),
        ({"message": "bad moon", "object": "error"}, "bad moon"),
        ({"detail": "bad moon"}, "bad moon"),
        ({"detail": [{"msg": "bad moon"}]}, '[{"msg": "bad moon"}]'),
        ({"error": {"message": {"why": "moon"}, "code": 3}}, '{"why": "moon"}'),
        ({"moon": "bad"}, '{"moon": "bad"}'),
        (["bad moon"], '["bad moon"]'),
        ("bad moon", "bad moon"),
    ],
)
async def test_the_endpoints_own_words_are_found(chat: Any, endpoint: FakeEndpoint, answered: Any, words: str) -> None:
    one = await chat()
    endpoint.plan(answer(answered, status=400))
    assert await refusal_of(one) == f"the endpoint answered 400: {words}"


async def test_a_page_in_place_of_an_error_is_quoted(chat: Any, endpoint: FakeEndpoint) -> None:
    one = await chat()
    endpoint.plan(body(b"<html>\n  <h1>bad\xff moon</h1>", status=404), body(b"", status=400))
    assert await refusal_of(one) == "the endpoint answered 404: <html> <h1>bad\ufffd moon</h1>"
    assert await refusal_of(one) == "the endpoint answered 400: (nothing)"


async def test_a_redirect_is_not_followed(chat: Any, endpoint: FakeEndpoint) -> None:
    one = await chat()
    endpoint.plan(error(308, Location="https://elsewhere.example/v1"))
    assert "https://elsewhere.example/v1" in await refusal_of(one)
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, "Your input exceeds the limit.", "context_length_exceeded"),
        (400, "This model's maximum context length is 2048 tokens. However, you requested 9000 tokens", None),
        (400, "The decoder prompt (length 3000) is longer than the maximum model length of 2048.", None),
        (400, "the request exceeds the available context size, try increasing it", None),
        (400, "prompt is too long: 210000 tokens > 200000 maximum", None),
        (400, "The input token count (1200000) exceeds the maximum number of tokens allowed", None),
        (422, "`inputs` tokens + `max_new_tokens` must be <= 4096", None),
        (413, "Please reduce the length of the messages or completion.", None),
    ],
)
async def test_a_conversation_that_is_too_long_is_named_so(
    chat: Any, endpoint: FakeEndpoint, status: int, message: str, code: str | None
) -> None:
    one = await chat()
    endpoint.plan(error(status, message, code=code))
    said = await refusal_of(one)
    assert said.startswith("the conversation is longer than")
    assert message in said
    assert len(endpoint.requests) == 1


# --- the start ---


async def test_the_only_model_is_found(chat: Any) -> None:
    assert (await chat()).name == "fake-1"


async def test_a_bare_list_of_models_is_understood(chat: Any, endpoint: FakeEndpoint) -> None:
    endpoint.plan_listing(answer([{"id": "bare"}, {"name": "no id"}, {"id": 3}, 3]))
    assert (await chat()).name == "bare"


async def test_before_the_start_the_name_is_what_is_known(endpoint: FakeEndpoint, at: FakeTime) -> None:
    assert client(endpoint.url, at, model="m").name == "m"
    assert client(endpoint.url, at).name == endpoint.url


@pytest.mark.parametrize("names", [(), ("a", "b"), tuple(f"model-{n}" for n in range(200))], ids=["none", "two", "many"])
async def test_without_a_name_there_must_be_one_model(chat: Any, endpoint: FakeEndpoint, names: tuple[str, ...]) -> None:
    endpoint.models = names
    with pytest.raises(ConfigError, match=f"has {len(names)} models") as caught:
        await chat()
    assert list(names[:40]) == list(caught.value.problems[: min(len(names), 40)])
    assert len(caught.value.problems) <= 41


async def test_a_model_that_is_not_there_is_said_with_the_nearest_name(chat: Any, endpoint: FakeEndpoint) -> None:
    endpoint.models = ("qwen3-8b", "llama-70b")
    with pytest.raises(ConfigError, match="no model 'qwen3-8B'; did you mean 'qwen3-8b'"):
        await chat(model="qwen3-8B")
    with pytest.raises(ConfigError, match="it has qwen3-8b, llama-70b"):
        await chat(model="zzz")


async def test_an_endpoint_may_have_no_list_if_the_model_is_given(chat: Any, endpoint: FakeEndpoint) -> None:
    endpoint.plan_listing(error(404), answer({"data": []}), error(404))
    assert (await chat(model="m")).name == "m"
    assert (await chat(model="m")).name == "m"
    with pytest.raises(ConfigError, match="lists no models; give the name"):
        await chat()


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_is_refused_is_said_by_the_name_of_its_variable(chat: Any, endpoint: FakeEndpoint, status: int) -> None:
    endpoint.plan_listing(error(status, "who are you?"), error(status))
    with pytest.raises(ConfigError, match=r"FAKE_KEY holds a key that it does not take .*who are you\?"):
        await chat()
    with pytest.raises(ConfigError, match="NO_SUCH_KEY is not set"):
        await chat(key_env="NO_SUCH_KEY")
    assert endpoint.listings == 2


async def test_a_list_that_fails_is_asked_for_again(chat: Any, endpoint: FakeEndpoint) -> None:
    endpoint.plan_listing(error(503), raw(b""))
    assert (await chat()).name == "fake-1"
    assert endpoint.listings == 3


async def test_a_server_that_is_not_up_yet_is_waited_for(endpoint: FakeEndpoint, at: FakeTime) -> None:
    await endpoint.__aexit__()
    one = client(endpoint.url, at)
    with pytest.raises(TeacherError, match=r"no reply in 4 attempts .*; check that the server is up") as caught:
        await one.start()
    assert endpoint.url in str(caught.value)
    assert len(at.slept) == 3


async def test_a_web_page_in_place_of_the_list_says_what_to_check(chat: Any, endpoint: FakeEndpoint) -> None:
    endpoint.plan_listing(*[body(b"<html>Welcome</html>")] * 4)
    with pytest.raises(TeacherError, match=r"Welcome.*check that .* the URL is right"):
        await chat()


async def test_a_list_that_will_never_come_is_a_matter_of_the_config(chat: Any, endpoint: FakeEndpoint) -> None:
    endpoint.plan_listing(error(400, "no such organisation"))
    with pytest.raises(ConfigError, match="no such organisation"):
        await chat()
    assert endpoint.listings == 1


async def test_the_list_has_less_time_than_a_reply(chat: Any, endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracemill.generators.teachers.openai.CONNECTING", 0.2)
    endpoint.plan_listing(never())
    with pytest.raises(TeacherError, match=r"no answer within 0\.2 s"):
        await chat(retries=0)


@pytest.mark.parametrize("url", ["http://someone:hunter2@127.0.0.1/v1", "http://[nothing/v1"])
def test_an_url_that_will_not_do_is_said_without_its_password(url: str, at: FakeTime) -> None:
    with pytest.raises(ConfigError, match=r"^url: ") as caught:
        client(url, at)
    assert "hunter2" not in repr(caught.value)


async def test_a_key_with_a_line_break_within_is_said(chat: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_KEY", f"{KEY}\r\nX-Evil: 1")
    with pytest.raises(ConfigError, match="FAKE_KEY holds characters") as caught:
        await chat()
    assert KEY not in repr(caught.value)


# --- the key stays secret ---


def _whole_text(error: BaseException | None) -> str:
    """All that could be printed of an error and of what led to it."""
    texts = []
    while error is not None:
        texts += [str(error), repr(error), *map(repr, error.args), *traceback.format_exception(error)]
        error = error.__cause__ or error.__context__
    return "\n".join(texts)


@pytest.mark.parametrize(
    "trouble",
    [
        error(401, f"wrong key: Bearer {KEY}"),
        error(400, "x" * 490 + KEY),
        error(503, KEY, code=KEY),
        answer({"error": KEY}),
        body(KEY.encode()),
        error(307, Location=f"https://elsewhere.example/{KEY}"),
        raw(f"HTTP/1.1 999999 {KEY}\r\n\r\n".encode()),
        raw(f"{KEY}\r\n\r\n".encode()),
        raw(b""),
        cut_in_body(),
        never(),
    ],
)  # fmt: skip
async def test_the_key_is_in_no_error(chat: Any, endpoint: FakeEndpoint, trouble: Answer) -> None:
    one = hasty(await chat(retries=1))
    endpoint.plan(trouble, trouble)
    with pytest.raises(TeacherError) as caught:
        await one.complete(ask())
    text = _whole_text(caught.value)
    assert KEY not in text
    assert KEY[:10] not in text
    assert KEY not in repr(one)


async def test_the_key_is_in_no_error_of_the_start(chat: Any, endpoint: FakeEndpoint) -> None:
    for trouble in (error(401, f"wrong key: {KEY}"), error(400, KEY), body(KEY.encode())):
        endpoint.plan_listing(*[trouble] * 4)
        with pytest.raises((ConfigError, TeacherError)) as caught:
            await chat()
        assert KEY not in _whole_text(caught.value)
        endpoint._listing_plan.clear()


# --- the address is nobody's business ---


@pytest.mark.parametrize("trouble", [raw(b""), cut_in_body(), raw(b"\x00what?\r\n\r\n"), None], ids=["cut", "half", "no HTTP", "down"])
async def test_the_address_is_in_no_error_of_a_request(chat: Any, endpoint: FakeEndpoint, trouble: Answer | None) -> None:
    """Such an error comes into the ledger, which is published with the run."""
    one = await chat(retries=1)  # so that the last connection is a new one
    host = endpoint.url.split("/")[2]
    if trouble is None:
        await endpoint.__aexit__()
    else:
        endpoint.plan(trouble, trouble)
    said = await refusal_of(one)
    assert not [part for part in (*host.split(":"), "chat/completions") if part in said], said
    assert trouble is not None or "refused" in said


async def test_a_host_that_an_endpoint_names_is_left_out(chat: Any, endpoint: FakeEndpoint) -> None:
    host = endpoint.url.split("/")[2]
    one = await chat(retries=0)
    endpoint.plan(error(400, f"Server at {host}"))
    assert "Server at [host]" in await refusal_of(one)


async def test_a_model_that_is_listed_by_its_folder_is_asked_for_so_and_recorded_by_its_name(chat: Any, endpoint: FakeEndpoint) -> None:
    endpoint.models = ("/home/me/models/agent-7b",)
    for one in (await chat(), await chat(model="/home/me/models/agent-7b")):
        await one.complete(ask())
        assert one.name == "agent-7b" and endpoint.requests[-1]["model"] == "/home/me/models/agent-7b"


# --- limits per minute ---


async def taken(bucket: Bucket, at: FakeTime, *amounts: float) -> list[float]:
    """When each amount was had, in seconds from now."""
    begun = at.now
    times = []
    for amount in amounts:
        await bucket.take(amount)
        times.append(round(at.now - begun, 6))
    return times


async def test_a_bucket_spreads_requests_evenly(at: FakeTime) -> None:
    bucket = Bucket(30, clock=at.clock, sleep=at.sleep)  # one in two seconds: a burst of one
    assert await taken(bucket, at, 1, 1, 1, 1) == [0, 2, 4, 6]


async def test_a_bucket_allows_a_small_burst_after_a_pause(at: FakeTime) -> None:
    bucket = Bucket(120, clock=at.clock, sleep=at.sleep)
    assert await taken(bucket, at, *[1] * 6) == [0, 0, 0, 0, 0.5, 1]
    at.now += 3600
    assert await taken(bucket, at, *[1] * 6) == [0, 0, 0, 0, 0.5, 1]


async def test_an_amount_larger_than_the_bucket_is_paid_for_afterwards(at: FakeTime) -> None:
    bucket = Bucket(600, clock=at.clock, sleep=at.sleep)  # 10 a second, holds 20
    assert await taken(bucket, at, 100, 1, 10) == [0, 8.1, 9.1]


async def test_what_was_not_used_is_given_back(at: FakeTime) -> None:
    bucket = Bucket(600, clock=at.clock, sleep=at.sleep)
    await bucket.take(100)
    bucket.give_back(90)
    assert await taken(bucket, at, 10, 10) == [0, 1]
    bucket.give_back(-10)  # more was used than was taken
    assert await taken(bucket, at, 10) == [2]


async def test_giving_back_makes_no_larger_burst(at: FakeTime) -> None:
    bucket = Bucket(600, clock=at.clock, sleep=at.sleep)
    bucket.give_back(10_000)
    assert await taken(bucket, at, 20, 10) == [0, 1]


async def test_what_is_given_back_is_had_by_those_who_wait(at: FakeTime) -> None:
    bucket = Bucket(60, clock=at.clock, sleep=at.sleep)
    await bucket.take(1000)
    waiting = asyncio.create_task(taken(bucket, at, 2))
    await asyncio.sleep(0)
    bucket.give_back(1000)
    assert await waiting < [2]


async def test_a_large_amount_is_not_overtaken_by_small_ones(at: FakeTime) -> None:
    bucket = Bucket(60, clock=at.clock, sleep=at.sleep)
    await bucket.take(10)
    had: list[float] = []

    async def take(amount: float) -> None:
        await bucket.take(amount)
        had.append(amount)

    await asyncio.gather(*(take(amount) for amount in (2, 0.1, 1, 0.2)))
    assert had == [2, 0.1, 1, 0.2]


async def test_no_limit_never_waits(at: FakeTime) -> None:
    bucket = Bucket(None, clock=at.clock, sleep=at.sleep)
    bucket.give_back(5)
    assert await taken(bucket, at, 1e9, 1e9) == [0, 0]
    assert not at.slept


async def test_requests_keep_to_their_share_of_the_limit(chat: Any, endpoint: FakeEndpoint, at: FakeTime) -> None:
    one = await chat(requests_per_minute=60, share=0.25)
    begun = at.now
    for _ in range(4):
        await one.complete(ask())
    assert at.now - begun == pytest.approx(12, rel=0.01)  # one in four seconds


async def test_tokens_are_guessed_and_then_counted(chat: Any, endpoint: FakeEndpoint, at: FakeTime) -> None:
    one = await chat(tokens_per_minute=6000)  # 100 a second, holds 200
    long = ask(UserMessage(content="x" * 4000), sampling=Sampling(0, 3000))  # guessed: more than 4000
    endpoint.plan(answer(completion("a", usage=(300, 200))), answer({"choices": [{"message": {"content": "b"}}]}))
    begun = at.now
    await one.complete(long)
    await one.complete(long)  # waits until the 500 of the first are made good
    assert at.now - begun == pytest.approx(5, abs=0.3)
    begun = at.now
    await one.complete(long)  # nothing came back of the second: the guess holds
    assert 40 < at.now - begun < 45


# --- how many at once ---


class Crowd:
    """Tasks that go through a gate and stay until they are let go."""

    def __init__(self, gate: Gate, number: int) -> None:
        self.gate = gate
        self.doors = [asyncio.Event() for _ in range(number)]
        self.tasks = [asyncio.create_task(self._visit(door)) for door in self.doors]
        self.entered: list[asyncio.Event] = []

    async def _visit(self, door: asyncio.Event) -> None:
        async with self.gate:
            self.entered.append(door)
            await door.wait()

    async def settle(self) -> int:
        """How many have come in by now."""
        for _ in range(20):
            await asyncio.sleep(0)
        return len(self.entered)

    async def end(self) -> None:
        for door in self.doors:
            door.set()
        await asyncio.gather(*self.tasks)


async def test_a_gate_lets_in_so_many_and_then_one_for_one() -> None:
    crowd = Crowd(Gate(3), 5)
    assert await crowd.settle() == 3
    crowd.entered[1].set()
    assert await crowd.settle() == 4
    await crowd.end()
    assert crowd.entered == crowd.doors  # in the order in which they came
    assert crowd.gate.inside == 0


async def test_a_refusal_halves_the_limit_once_a_round() -> None:
    gate = Gate(64)
    sent = gate.round
    for _ in range(10):
        gate.refused(sent, 0)
    assert gate.limit == 32
    gate.refused(gate.round, 0)
    assert gate.limit == 16
    for _ in range(10):
        gate.refused(gate.round, 0)
    assert gate.limit == 1


async def test_a_round_of_successes_raises_the_limit_by_one_up_to_the_most() -> None:
    gate = Gate(32)
    gate.refused(gate.round, 0)
    for _ in range(16):
        gate.passed()
    assert 16.9 < gate.limit < 17
    for _ in range(1000):
        gate.passed()
    assert gate.limit == 32


async def test_after_a_halving_nobody_comes_in_until_enough_have_left() -> None:
    gate = Gate(4, sleep=lambda _: asyncio.sleep(0))
    crowd = Crowd(gate, 6)
    assert await crowd.settle() == 4
    gate.refused(gate.round, 0)
    for door in crowd.entered[:2]:
        door.set()
    assert await crowd.settle() == 4
    crowd.entered[2].set()
    assert await crowd.settle() == 5
    await crowd.end()


async def test_a_rising_limit_lets_in_those_who_wait() -> None:
    gate = Gate(2, sleep=lambda _: asyncio.sleep(0))
    gate.refused(gate.round, 0)
    crowd = Crowd(gate, 2)
    assert await crowd.settle() == 1
    gate.passed()
    assert await crowd.settle() == 2
    await crowd.end()


async def test_a_refusal_closes_the_gate_for_a_while(at: FakeTime) -> None:
    gate = Gate(8, clock=at.clock, sleep=at.sleep)
    gate.refused(gate.round, 30)
    gate.refused(gate.round, 5)
    async with gate:
        assert at.slept == [30]


async def test_one_who_gives_up_waiting_takes_no_place() -> None:
    gate = Gate(1)
    crowd = Crowd(gate, 3)
    await crowd.settle()
    crowd.tasks[1].cancel()
    crowd.entered[0].set()
    assert await crowd.settle() == 2
    assert crowd.entered[1] is crowd.doors[2]
    crowd.doors[2].set()
    await crowd.settle()
    assert gate.inside == 0


async def test_one_who_gives_up_when_just_let_in_gives_the_place_back() -> None:
    gate = Gate(1)
    crowd = Crowd(gate, 3)
    await crowd.settle()
    gate._leave()  # lets the second in, which has not run since
    crowd.tasks[1].cancel()
    gate.inside += 1
    crowd.doors[0].set()
    assert await crowd.settle() == 2
    crowd.doors[2].set()
    await crowd.settle()
    assert gate.inside == 0


async def test_one_who_gives_up_before_a_closed_gate_gives_the_place_back() -> None:
    gate = Gate(1)
    gate.refused(gate.round, 3600)
    task = asyncio.create_task(gate.__aenter__())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert gate.inside == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert gate.inside == 0


async def test_never_are_more_in_flight_than_allowed(chat: Any, endpoint: FakeEndpoint) -> None:
    one = await chat(concurrency=3)
    go = asyncio.Event()
    endpoint.plan(*[after(go, answer(completion("a")))] * 10)
    tasks = [asyncio.create_task(one.complete(ask())) for _ in range(10)]
    await endpoint.reached(3)
    go.set()
    await asyncio.gather(*tasks)
    assert len(endpoint.requests) == 10
    assert endpoint.most_in_flight == 3


async def test_refusals_lower_the_number_in_flight_and_successes_raise_it(chat: Any, endpoint: FakeEndpoint) -> None:
    one = await chat(concurrency=8)
    go = asyncio.Event()
    endpoint.plan(*[after(go, error(429))] * 8)
    tasks = [asyncio.create_task(one.complete(ask())) for _ in range(8)]
    await endpoint.reached(8)
    endpoint.most_in_flight = 0
    go.set()
    await asyncio.gather(*tasks)
    assert one._gate.round == 1
    assert 4 < one._gate.limit < 6
    assert endpoint.most_in_flight <= 5
    assert one._gate.inside == 0


async def test_other_trouble_does_not_lower_the_number_in_flight(chat: Any, endpoint: FakeEndpoint) -> None:
    one = await chat(concurrency=8)
    endpoint.plan(error(503), raw(b""), error(400))
    await refusal_of(one)
    assert one._gate.limit == 8


async def test_a_request_that_is_given_up_frees_its_place(chat: Any, endpoint: FakeEndpoint) -> None:
    one = await chat(concurrency=1)
    endpoint.plan(never())
    task = asyncio.create_task(one.complete(ask()))
    await endpoint.reached(1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (await one.complete(ask())).text == "Hello."


async def test_closing_twice_and_closing_what_was_not_started_is_fine(endpoint: FakeEndpoint, at: FakeTime) -> None:
    one = client(endpoint.url, at)
    await one.close()
    await one.start()
    await one.close()
    await one.close()
