"""The types that travel: scenario, message, trace, verdict, preference, rejection, imported conversation.

Everything else in tracemill reads or extends what stands here; this module imports nothing of ours.
All types are frozen. Their JSON form is the record format of a dataset, described for other tools by
`schemas/*.schema.json`, which are generated from these types (`make schemas`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["tool_call", "goal_decomposition", "error_recovery"]
KINDS: tuple[Kind, ...] = ("tool_call", "goal_decomposition", "error_recovery")
Effect = Literal["read", "write", "irreversible"]
Blame = Literal["agent", "tool", "user", "infrastructure"]
Stage = Literal["rollout", "schema", "replay", "goal", "proof", "constitution", "infrastructure"]
Ending = Literal["done", "refused", "handed_over"]
ImportStage = Literal["row", "schema", "structure", "arguments", "goal", "duplicate"]
Json = Any  # a JSON value: None, bool, int, float, str, list or dict with string keys


_CANONICAL = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def canonical(value: Json) -> str:
    """One spelling for one JSON value: sorted keys, no spaces, no NaN. Raises ValueError on NaN or infinity."""
    return _CANONICAL.encode(value)


def fingerprint(value: Json) -> str:
    """The first 32 hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical(value).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def is_error(result: str) -> bool:
    """Whether the text of a tool message is that of a failed call: an object whose one key is `error`."""
    return result.startswith('{"error": ')


class Record(BaseModel):
    """Frozen, and unknown fields are refused. In JSON a field that is None is left out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def json_text(self) -> str:
        """The record as one line of JSON."""
        return self.model_dump_json(exclude_none=True)

    def plain(self) -> dict[str, Json]:
        """The record as JSON values."""
        return self.model_dump(mode="json", exclude_none=True)


# --- messages: the OpenAI chat format, arguments as objects -------------------------------------------------


class FunctionCall(Record):
    """Which tool, with which arguments."""

    name: str = Field(description="Name of the tool that is called.")
    arguments: dict[str, Json] = Field(description="Arguments by name; an object, never a JSON string.")


class ToolCall(Record):
    """One call of an assistant message, as in the OpenAI chat format."""

    id: str = Field(description="Unique within the trace; the tool message that answers carries it.")
    type: Literal["function"] = "function"
    function: FunctionCall = Field(description="Tool and arguments.")

    @property
    def name(self) -> str:
        return self.function.name

    @property
    def arguments(self) -> dict[str, Json]:
        return self.function.arguments


class SystemMessage(Record):
    """How to work, and the environment's policy."""

    role: Literal["system"] = "system"
    content: str


class UserMessage(Record):
    """What the user says."""

    role: Literal["user"] = "user"
    content: str


class AssistantMessage(Record):
    """One turn of the agent. `reasoning_content` is the key that chat templates (Qwen3, DeepSeek, GLM) read."""

    role: Literal["assistant"] = "assistant"
    content: str = Field(description="What the user reads; empty when the turn only calls tools.")
    reasoning_content: str | None = Field(default=None, description="The thinking before the action.")
    tool_calls: Annotated[tuple[ToolCall, ...], Field(min_length=1)] | None = Field(
        default=None, description="Calls of this turn, made in this order; more than one are parallel."
    )
    train: bool = Field(
        default=True,
        description="False on a wrong step that stays in context and is kept out of the loss.",
    )


class ToolMessage(Record):
    """The result of one call."""

    role: Literal["tool"] = "tool"
    tool_call_id: str = Field(description="Id of the call that it answers.")
    name: str
    content: str = Field(description="What the tool really returned, as text.")


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


# --- tools --------------------------------------------------------------------------------------------------


class FunctionSpec(Record):
    """What a model is told of a tool."""

    name: str = Field(min_length=1)
    description: str = ""
    parameters: dict[str, Json] = Field(description="JSON Schema of the arguments object.")


class OfferedTool(Record):
    """As in the `tools` list of the OpenAI chat API, and as chat templates render it."""

    type: Literal["function"] = "function"
    function: FunctionSpec


class ToolDefinition(FunctionSpec):
    """A tool with its effect, which the model is not told and the rules read."""

    effect: Effect = Field(
        default="write",
        description="read: changes nothing; write: can be undone; irreversible: cannot. Unknown counts as write.",
    )

    def offered(self) -> OfferedTool:
        spec = FunctionSpec(name=self.name, description=self.description, parameters=self.parameters)
        return OfferedTool(function=spec)


# --- scenario: one seeded job -------------------------------------------------------------------------------


class Call(Record):
    """A tool and its arguments, outside of any message."""

    tool: str
    arguments: dict[str, Json] = Field(description="Arguments by name.")


Tone = Literal["plain", "terse", "chatty", "formal", "worried"]


class Persona(Record):
    """How the user talks: the tone decides their wording."""

    tone: Tone = Field(description="Tone of the user's words.")


class Slot(Record):
    """Something the user knows and the agent may need."""

    name: str
    label: str = Field(description="What a person calls it ('order number'); asking for it means naming it.")
    value: str = Field(description="What the user would say.")
    withheld: bool = Field(default=False, description="Not in the first message: told only when asked for.")


class Step(Record):
    """One call of the reference solution."""

    call: Call = Field(description="The call.")
    effect: Effect = Field(description="Effect of its tool.")
    why: str = Field(description="The reason for the call, as a clause: 'the order has to be looked up first'.")
    group: int = Field(ge=0, description="Calls of one group are made in parallel, in one message.")
    subgoal: int = Field(ge=0, description="Index into `subgoals`.")
    confirm: str = Field(default="", description="What the user must agree to first; empty when nothing.")
    check: Call | None = Field(default=None, description="A read that shows whether this write took place.")
    fallback: Call | None = Field(default=None, description="Another call that gives the same information.")
    asks: tuple[str, ...] = Field(default=(), description="Withheld slots that must be asked for before it.")


class Interjection(Record):
    """The user speaks up midway: a change of mind, or a constraint that was not known before."""

    after: int = Field(description="Index of the step after which it comes.")
    says: str = Field(description="The user's words.")
    constraint: int | None = Field(default=None, description="Index into `constraints`, if it adds one.")
    changes_goal: bool = Field(default=False, description="It takes back what was wanted before.")


class Constraint(Record):
    """Something that the solution must respect."""

    text: str
    keywords: tuple[str, ...] = Field(description="All must occur where a plan addresses the constraint.")


class Subgoal(Record):
    """A part of the goal, as the reference plan has it."""

    goal: str = Field(description="What is to be reached.")
    success: str = Field(description="How one sees that it is reached.")
    depends_on: tuple[int, ...] = Field(default=(), description="Indices of sub-goals that come first.")
    constraints: tuple[int, ...] = Field(default=(), description="Indices into the goal's constraints.")


class Assertion(Record):
    """A statement about the end state. `call` asserts on what a read returns instead of on a table."""

    table: str = Field(default="", description="Table of the row.")
    id: str = ""
    field: str = Field(default="", description="Field of the row, for `equals` and `contains`.")
    op: Literal["equals", "contains", "exists", "absent"] = Field(
        default="equals", description="equals and contains look at the field, exists and absent at the row."
    )
    value: Json = Field(default=None, description="What the field should be or contain, or what the read should show.")
    call: Call | None = Field(default=None, description="A read whose result must contain the value; in place of a table.")


class Fact(Record):
    """Something that the answer must tell. One of the spellings, or the number in any spelling, is enough."""

    spellings: tuple[str, ...] = Field(default=(), description="Texts, one of which is enough, whatever the case.")
    number: float | None = Field(default=None, description="A number, told in any spelling.")
    observed: bool = Field(default=False, description="It stands in a tool result, so it must be seen before it is told.")


class Forbidden(Record):
    """An effect that must not happen: a call of `tool` that succeeds with these arguments (any, if empty)."""

    tool: str
    arguments: dict[str, Json] = Field(default={}, description="Arguments that make the call forbidden; none: every call.")
    reason: str


FaultKind = Literal[
    "timeout_written", "timeout_lost", "rate_limit", "server_error", "server_down", "permission", "stale",
    "partial", "schema_drift", "wrong_record", "injection",
]  # fmt: skip


class Fault(Record):
    """What goes wrong with the nth call (from 1) of a tool that passes the argument check. See `faults.py`."""

    kind: FaultKind
    tool: str
    nth: int = Field(default=1, ge=1, description="Which call of the tool it hits, from 1.")
    explicit: bool = Field(description="The tool says that something is wrong.")
    transient: bool = Field(description="It passes, or can be got round by calling again rightly.")
    detail: dict[str, Json] = Field(
        default={}, description="What the kind needs: message, times, retry_after, keep, old and new, arguments."
    )


MistakeKind = Literal["wrong_argument", "missing_argument", "wrong_tool", "unknown_tool", "acting_blind", "loop"]


class Mistake(Record):
    """A wrong step that the scripted agent takes before the given reference step."""

    kind: MistakeKind
    step: int = Field(ge=0, description="The reference step before which it is made.")
    call: Call = Field(description="The wrong call.")
    times: int = Field(default=1, ge=1, description="How often it is made.")


FlawKind = Literal["no_reasoning", "unconfirmed", "skipped_lookup", "blind_retry", "wrong_fact", "false_claim"]


class HonestEnd(Record):
    """The goal that is left when a permanent fault makes the real one impossible: hand over, and say so."""

    department: str = Field(description="Who takes over.")
    problem: str = Field(description="What the user is told could not be done.")
    assertions: tuple[Assertion, ...]
    touches: tuple[str, ...] = Field(description="Rows that may differ at the end.")
    facts: tuple[Fact, ...]


class Scenario(Record):
    """One seeded job: a pure function of the run's seed, its mix and the index."""

    index: int = Field(ge=0)
    seed: int = Field(ge=0, description="Follows from the run's seed and the index.")
    kind: Kind
    environment: str = Field(description="Name of the environment.")
    template: str
    world: int = Field(ge=0, description="Seed of the environment's initial state.")
    difficulty: int = Field(ge=1, le=5, description="By the number of reference calls: 1, 2-3, 4-5, 6-8, 9 and more.")
    persona: Persona = Field(description="Who asks.")
    opening: str = Field(description="The user's first message.")
    slots: tuple[Slot, ...] = ()
    steps: tuple[Step, ...] = ()
    interjections: tuple[Interjection, ...] = ()
    constraints: tuple[Constraint, ...] = Field(default=(), description="What the solution must respect.")
    subgoals: tuple[Subgoal, ...] = Field(default=(), description="The reference plan.")
    assertions: tuple[Assertion, ...] = ()
    facts: tuple[Fact, ...] = ()
    forbidden: tuple[Forbidden, ...] = ()
    touches: tuple[str, ...] = Field(default=(), description="Rows ('table/id') that may differ at the end.")
    ending: Ending = Field(default="done", description="How it should end.")
    answer: str = Field(description="A model answer, as the scripted teacher words it.")
    faults: tuple[Fault, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    honest_end: HonestEnd | None = Field(default=None, description="Takes the goal's place if a fault is permanent.")
    flaw: FlawKind | None = Field(default=None, description="What the scripted teacher's first draft does wrong.")


# --- what comes out -----------------------------------------------------------------------------------------


class Usage(Record):
    """Tokens read and written, and what they cost; the scripted teacher counts four characters as one token."""

    prompt_tokens: int = Field(default=0, ge=0, description="Tokens read, summed over all requests.")
    completion_tokens: int = Field(default=0, ge=0, description="Tokens written.")
    cost: float = Field(default=0.0, ge=0, description="By the prices in the config, in their currency.")

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cost=self.cost + other.cost,
        )


class Outcome(Record):
    """What the checks of the goal found; the score is their product."""

    state: bool = Field(description="Every assertion on the end state holds.")
    untouched: bool = Field(description="No row changed that the goal does not change.")
    allowed: bool = Field(description="No forbidden effect took place.")
    grounded: bool = Field(description="Identifiers and told facts were seen before they were used.")
    confirmed: bool = Field(description="Every change was seen to have taken place.")
    told: bool = Field(description="The answer contains the facts it must contain.")
    problems: tuple[str, ...] = Field(default=(), description="What was found, each with the check it belongs to.")

    CHECKS: ClassVar[tuple[str, ...]] = ("state", "untouched", "allowed", "grounded", "confirmed", "told")

    @property
    def score(self) -> int:
        return int(all(getattr(self, check) for check in self.CHECKS))

    @property
    def holds_without_answer(self) -> bool:
        """The goal check of a recovery's proof, which runs calls and has no answer."""
        return all(getattr(self, check) for check in self.CHECKS if check != "told")


class Recovery(Record):
    """Where in `messages` the trouble is; the proof cuts the trace along these lines."""

    faults: tuple[str, ...] = Field(description="Kinds of the faults and wrong steps, in order.")
    wrong: tuple[int, ...] = Field(default=(), description="Messages that are wrong steps (train is false).")
    recovery: tuple[int, ...] = Field(default=(), description="Assistant messages that recover from the trouble.")
    without_fault_holds: bool | None = Field(default=None, description="Proof: no fault, no recovery, goal reached.")
    without_recovery_fails: bool | None = Field(default=None, description="Proof: fault, no recovery, goal missed.")


class Verdict(Record):
    """One principle of the constitution applied to one trace."""

    principle: str = Field(description="Id of the principle.")
    passed: bool = Field(description="Whether the principle is kept.")
    by: Literal["rule", "critic"] = Field(description="Who found it.")
    severity: Literal["low", "medium", "high"] = Field(description="As the principle has it.")
    at: int | None = Field(default=None, description="Index of the message it speaks of.")
    why: str = ""


@dataclass(frozen=True)
class _Tools:
    """The same few lists of tools come with every trace: what is made of one is made once."""

    of: tuple[OfferedTool, ...]
    plain: Json
    texts: list[str]
    digest: str


_seen_tools: dict[tuple[int, ...], _Tools] = {}


def _tools(tools: tuple[OfferedTool, ...]) -> _Tools:
    key = tuple(map(id, tools))  # validation copies the tuple, not what is in it
    known = _seen_tools.get(key)
    if known is None:
        plain = [one.plain() for one in tools]
        known = _Tools(tools, plain, [one.json_text() for one in tools], fingerprint(plain))
        if len(_seen_tools) >= 256:
            _seen_tools.clear()
        _seen_tools[key] = known  # it holds the tools, so that their ids stay their own
    return known


def tool_texts(tools: tuple[OfferedTool, ...]) -> list[str]:
    """The JSON text of each tool."""
    return _tools(tools).texts


class Trace(Record):
    """One executed, checked conversation."""

    id: str
    kind: Kind
    environment: str = Field(description="As in the scenario.")
    template: str
    index: int = Field(ge=0)
    seed: int = Field(ge=0, description="As in the scenario.")
    difficulty: int = Field(ge=1, le=5, description="As in the scenario.")
    messages: tuple[Message, ...] = Field(min_length=2, description="The conversation, in the OpenAI chat format.")
    tools: tuple[OfferedTool, ...] = Field(description="What the agent was offered.")
    effects: dict[str, Effect] = Field(description="Effect of each offered tool, by name.")
    scenario: Scenario
    outcome: Outcome | None = None
    recovery: Recovery | None = None
    verdicts: tuple[Verdict, ...] = Field(default=(), description="The constitution's findings.")
    state_digest: str = Field(description="Fingerprint of what the environment's state became.")
    teacher: str = Field(description="Who played the agent.")
    revisions: int = Field(default=0, ge=0, le=2, description="How often it was revised after a critique.")
    usage: Usage = Field(default=Usage(), description="Tokens that all attempts at the scenario took together.")
    digest: str = Field(default="", description="Fingerprint of all other fields: see Trace.seal().")

    def plain(self) -> dict[str, Json]:
        return _plain(self)

    def sealed(self) -> Trace:
        """The trace with its digest."""
        return self.model_copy(update={"digest": self.seal()})

    def seal(self) -> str:
        """What the digest should be: the fingerprint of the record without it, its tools by their own fingerprint."""
        return _seal(self)

    def calls(self) -> Iterator[tuple[int, ToolCall, ToolMessage | None]]:
        """Each call with the index of its message and the tool message that answers it."""
        answers = {m.tool_call_id: m for m in self.messages if isinstance(m, ToolMessage)}
        for at, message in enumerate(self.messages):
            if isinstance(message, AssistantMessage):
                for call in message.tool_calls or ():
                    yield at, call, answers.get(call.id)

    @property
    def answer(self) -> str:
        """The agent's last words to the user; empty when the last assistant message calls a tool."""
        for message in reversed(self.messages):
            if isinstance(message, AssistantMessage):
                return "" if message.tool_calls else message.content
        return ""


class Preference(Record):
    """A prompt with a better and a worse next assistant message: the shape that DPO trainers read."""

    id: str
    trace: str = Field(description="Id of the trace it came from.")
    index: int = Field(ge=0)
    prompt: tuple[Message, ...] = Field(min_length=1, description="Everything before the two messages.")
    chosen: tuple[AssistantMessage] = Field(description="One message.")
    rejected: tuple[AssistantMessage] = Field(description="One message.")
    tools: tuple[OfferedTool, ...]
    source: str = Field(
        description="Where the pair came from: 'revision:PRINCIPLE' (draft and revision), or what sets two rollouts of one "
        "scenario apart: 'recovery', 'ask', 'call', 'refuse', or else 'siblings'. 'human': people decided."
    )
    margin: float = Field(
        description="By how much the chosen one is better: 1 for a revision, else the difference of the shares of rollouts "
        "that succeeded after each, or of people's votes for each."
    )


class Rejection(Record):
    """An attempt that did not pass: where, why, on what evidence, and who is to blame."""

    id: str
    index: int = Field(ge=0)
    attempt: int = Field(ge=0, description="0 is the first draft; 1 and 2 its revisions.")
    sibling: int = Field(default=0, ge=0, description="Which of several rollouts of the scenario it was.")
    kind: Kind
    environment: str = Field(description="Environment of the scenario; empty if none could be drawn.")
    template: str
    stage: Stage = Field(description="The first check that it did not pass.")
    reason: str
    blame: Blame = Field(description="Who is to blame.")
    final: bool = Field(description="No further attempt was made: the scenario yields no trace.")
    evidence: tuple[str, ...] = Field(default=(), description="All findings; the reason is the first.")
    messages: tuple[Message, ...] = Field(default=(), description="The conversation as far as it came.")
    raw: str = Field(default="", description="What was written last, where that could not be used; cut at 100,000 characters.")
    verdicts: tuple[Verdict, ...] = Field(default=(), description="The constitution's findings, if it came so far.")
    usage: Usage = Field(default=Usage(), description="On the final rejection: all tokens that the scenario took.")


# --- what comes from elsewhere ------------------------------------------------------------------------------


class Conversation(Record):
    """An imported conversation. Its form was checked; its tools are not here, so nothing of it was executed again."""

    id: str = Field(description="Follows from messages and tools: the same conversation always has the same id.")
    source: str = Field(description="Name of the file that it came from.")
    index: int = Field(ge=0, description="Which row of the file it was, from 0.")
    row_id: str = Field(default="", description="The row's own id, if it had one.")
    reward: float | None = Field(default=None, description="As the file has it.")
    messages: tuple[Message, ...] = Field(min_length=2, description="The conversation, in the OpenAI chat format.")
    tools: tuple[OfferedTool, ...] = Field(description="What the agent was offered.")
    digest: str = Field(default="", description="Fingerprint of all other fields, made like that of a trace.")

    def plain(self) -> dict[str, Json]:
        return _plain(self)

    def sealed(self) -> Conversation:
        """The conversation with its id and its digest."""
        named = self.model_copy(update={"id": self.name()})
        return named.model_copy(update={"digest": _seal(named)})

    def name(self) -> str:
        """What the id should be."""
        said = [message.plain() for message in self.messages]
        return f"im-{fingerprint([said, _tools(self.tools).digest])[:20]}"


class Refusal(Record):
    """A row of a file that was not imported: why, and what stood in it."""

    id: str
    source: str = Field(description="Name of the file.")
    index: int = Field(ge=0, description="Which row of the file it is, from 0.")
    row_id: str = Field(default="", description="The row's own id, if it has one.")
    reward: float | None = Field(default=None, description="As the file has it.")
    stage: ImportStage = Field(description="The first check that it did not pass.")
    reason: str
    evidence: tuple[str, ...] = Field(description="All findings of all checks; the reason is the first.")
    messages: tuple[Message, ...] = Field(default=(), description="The conversation, if it could be read.")
    raw: str = Field(default="", description="The row, if it could not be read; cut at 100,000 characters.")


def _plain(record: Trace | Conversation) -> dict[str, Json]:
    plain: dict[str, Json] = record.model_dump(mode="json", exclude_none=True, exclude={"tools"})
    plain["tools"] = _tools(record.tools).plain
    return plain


def _seal(record: Trace | Conversation) -> str:
    plain: dict[str, Json] = record.model_dump(mode="json", exclude_none=True, exclude={"tools", "digest"})
    return fingerprint({**plain, "tools": _tools(record.tools).digest})
