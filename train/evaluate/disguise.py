"""Disguises: what the policy is shown differs from what there is, and nobody else knows.

A disguise stands between rollout and policy. It turns what the policy reads (tools, instructions, earlier calls, errors)
into the names that the policy knows, and the policy's calls back. Rollout, judges and metrics see true names only, so
they work on a disguised rollout as on any other.

What keeps its name: the tools that every environment has, since the instructions speak of them by name; what a tool
returned where it did not fail, which is data; and what the policy itself writes, which it is shown again as it wrote it.
"""

from __future__ import annotations

import dataclasses
import functools
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tracemill.generators.environments.base import Environment, as_text, refusal
from tracemill.generators.environments.catalogue import BUILT_IN, environment
from tracemill.generators.environments.tool import Tool
from tracemill.generators.teachers.base import Reply, Request, Teacher
from tracemill.generators.teachers.scripted import ScriptedTeacher
from tracemill.trace import (
    AssistantMessage,
    Call,
    FunctionCall,
    FunctionSpec,
    Json,
    Message,
    OfferedTool,
    Scenario,
    SystemMessage,
    ToolCall,
    ToolMessage,
    is_error,
)  # fmt: skip

DISTRACTORS = (10, 30)
"""The fewest and the most that are added."""


@dataclass(frozen=True)
class Masks:
    """Shown names by true ones, and tools that are shown and do not exist.

    Both maps are permutations of the names in them: where 'order_id' is shown as 'xufez', 'xufez' is shown as 'order_id'.
    So a policy that uses a name which it was not shown gets the error for a name that there is not, in its own words.
    """

    tools: Mapping[str, str] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    added: tuple[OfferedTool, ...] = ()

    @functools.cached_property
    def _true_tools(self) -> dict[str, str]:
        return {shown: true for true, shown in self.tools.items()}

    @functools.cached_property
    def _true_arguments(self) -> dict[str, str]:
        return {shown: true for true, shown in self.arguments.items()}

    @functools.cached_property
    def _spelled(self) -> re.Pattern[str]:
        """Finds names of tools in prose. One that is a mere word, such as 'wait', may be meant as that and is left alone."""
        return re.compile(rf"(?<!\w)(?:{_any(name for name in self.tools if not name.isalpha())})(?!\w)")

    @functools.cached_property
    def _quoted(self) -> re.Pattern[str]:
        """Finds names of arguments in errors: in quotation marks ('order_id'), or as a path ($.order_id)."""
        names = _any(self.arguments)
        return re.compile(rf"(?<=')(?:{names})(?=')|(?<=\$\.)(?:{names})(?!\w)")

    @functools.cached_property
    def _not_there(self) -> frozenset[str]:
        return frozenset(tool.function.name for tool in self.added)

    # --- to the policy ---

    def offered(self, tools: Sequence[OfferedTool]) -> tuple[OfferedTool, ...]:
        """The tools as they are shown; with added ones among them by the alphabet, so that no place gives them away."""
        shown = [self._tool(one) for one in tools]
        return tuple(sorted((*shown, *self.added), key=lambda one: one.function.name) if self.added else shown)

    def message(self, message: Message) -> Message:
        """A message of the rollout as it is shown."""
        match message:
            case SystemMessage():
                return SystemMessage(content=self._worded(message.content))
            case AssistantMessage(tool_calls=calls) if calls:
                return message.model_copy(update={"tool_calls": tuple(self._call(one) for one in calls)})
            case ToolMessage():
                return message.model_copy(update={"name": self.tools.get(message.name, message.name), "content": self._result(message)})
        return message

    def _tool(self, tool: OfferedTool) -> OfferedTool:
        spec = tool.function
        parameters = self._described(spec.parameters)
        if spec.name not in common():
            parameters = _renamed_schema(parameters, self.arguments)
        name = self.tools.get(spec.name, spec.name)
        return OfferedTool(function=FunctionSpec(name=name, description=self._worded(spec.description), parameters=parameters))

    def _call(self, made: ToolCall) -> ToolCall:
        name = self.tools.get(made.name, made.name)
        arguments = _renamed(made.name, made.arguments, self.tools, self.arguments)
        return made.model_copy(update={"function": FunctionCall(name=name, arguments=arguments)})

    def _result(self, message: ToolMessage) -> str:
        if message.name in self._not_there:
            refused = refusal("read", "not_allowed", f"{message.name} is not open to this desk; nothing was done")
            return as_text(refused.content)
        if not is_error(message.content):
            return message.content
        text = self._worded(message.content)
        return text if message.name in common() else self._quoted.sub(lambda found: self.arguments[found[0]], text)

    def _worded(self, text: str) -> str:
        """The text with the names of tools that occur in it changed."""
        return self._spelled.sub(lambda found: self.tools[found[0]], text)

    def _described(self, schema: Json) -> Json:
        """The same in the descriptions of a schema."""
        if isinstance(schema, list):
            return [self._described(one) for one in schema]
        if not isinstance(schema, dict):
            return schema
        return {
            key: self._worded(value) if key == "description" and isinstance(value, str) else self._described(value)
            for key, value in schema.items()
        }

    # --- from the policy ---

    def true(self, call: Call) -> Call:
        """The call that the policy means."""
        name = self._true_tools.get(call.tool, call.tool)
        return Call(tool=name, arguments=_renamed(name, call.arguments, self._true_tools, self._true_arguments))


class Disguise:
    """A teacher that sees the environment in disguise.

    The built-in teacher looks at neither names nor schemas, but plans from the scenario in true names: to it, and to a
    user or a critic, nothing is changed. It shows that the scenario can be played, not how hard the disguise is.
    """

    def __init__(self, inner: Teacher, masks_of: Callable[[Scenario], Masks]) -> None:
        self._inner = inner
        self._masks_of = masks_of
        self._views: dict[tuple[str, str, int], tuple[Masks, tuple[OfferedTool, ...]]] = {}

    @property
    def name(self) -> str:
        return self._inner.name

    async def start(self) -> None:
        await self._inner.start()

    async def close(self) -> None:
        await self._inner.close()

    async def reply(self, request: Request) -> Reply:
        if request.role != "agent" or isinstance(self._inner, ScriptedTeacher):
            return await self._inner.reply(request)
        masks, tools = self._view(request)
        messages = [masks.message(one) for one in request.messages]
        reply = await self._inner.reply(dataclasses.replace(request, messages=messages, tools=tools))
        return dataclasses.replace(reply, calls=tuple(masks.true(call) for call in reply.calls))

    def _view(self, request: Request) -> tuple[Masks, tuple[OfferedTool, ...]]:
        """The masks and the tools as they are shown: made once for all replies of a conversation."""
        place = (request.scenario.environment, request.scenario.kind, request.scenario.seed)
        if place not in self._views:
            if len(self._views) >= 256:
                self._views.clear()
            masks = self._masks_of(request.scenario)
            self._views[place] = masks, masks.offered(request.tools)
        return self._views[place]


# --- which masks --------------------------------------------------------------------------------------------


def misleading_names(scenario: Scenario) -> Masks:
    """Tools have each other's names, what looks those of what looks, what changes those of what changes; descriptions stay
    true. A name that exists and misleads is worse than one that says nothing."""
    rng = random.Random(f"{scenario.seed}/misleading_names")
    own = _own(scenario)
    names: dict[str, str] = {}
    for reads in (True, False):
        alike = [name for name, tool in own.items() if (tool.effect == "read") == reads]
        rng.shuffle(alike)
        names |= zip(alike, (*alike[1:], *alike[:1]), strict=True)
    return Masks(tools=names)


def scrambled_arguments(scenario: Scenario) -> Masks:
    """Arguments have names that mean nothing, the same one wherever the true name is the same; descriptions stay."""
    rng = random.Random(f"{scenario.seed}/scrambled_arguments")
    true = dict.fromkeys(name for tool in _own(scenario).values() for name in tool.definition.parameters.get("properties", {}))
    names: dict[str, str] = {}
    for name in true:
        made_up = _made_up(rng)
        while made_up in names or made_up in true:
            made_up = _made_up(rng)
        names |= {name: made_up, made_up: name}
    return Masks(arguments=names)


def distractors(scenario: Scenario) -> Masks:
    """Ten to thirty tools of other built-in environments are offered beside the real ones. They refuse every call; in the
    rollout's own record such a call is one of a tool that does not exist."""
    rng = random.Random(f"{scenario.seed}/distractors")
    real = environment(scenario.environment).toolbox()
    others = [environment(name) for name in BUILT_IN if name != scenario.environment]
    found = {one.function.name: one for cls in others for one in cls.offered(scenario.kind) if one.function.name not in real}
    return Masks(added=tuple(rng.sample(list(found.values()), rng.randint(*DISTRACTORS))))


def common() -> Mapping[str, Tool]:
    """Tools that every environment has."""
    return Environment.toolbox()


def _own(scenario: Scenario) -> dict[str, Tool]:
    return {name: tool for name, tool in environment(scenario.environment).toolbox().items() if name not in common()}


def _made_up(rng: random.Random) -> str:
    return "".join(rng.choice(letters) for letters in ("bdfgkvxz", "aeiou", "bdfgkvxz", "eou", "fgkvxz"))


# --- names in calls and texts -------------------------------------------------------------------------------


def _renamed(tool: str, arguments: dict[str, Json], tools: Mapping[str, str], names: Mapping[str, str]) -> dict[str, Json]:
    """The arguments of the tool of that (true) name under other names. A plan names tools in what it says."""
    if tool == "update_plan" and isinstance(arguments.get("subgoals"), list):
        return {**arguments, "subgoals": [_renamed_subgoal(one, tools) for one in arguments["subgoals"]]}
    return arguments if tool in common() else {names.get(key, key): value for key, value in arguments.items()}


def _renamed_subgoal(subgoal: Json, tools: Mapping[str, str]) -> Json:
    if not isinstance(subgoal, dict) or not isinstance(subgoal.get("tools"), list):  # whatever the policy wrote
        return subgoal
    return {**subgoal, "tools": [tools.get(one, one) if isinstance(one, str) else one for one in subgoal["tools"]]}


def _renamed_schema(schema: dict[str, Json], names: Mapping[str, str]) -> dict[str, Json]:
    changed = dict(schema)
    if "properties" in schema:
        changed["properties"] = {names.get(key, key): value for key, value in schema["properties"].items()}
    if "required" in schema:
        changed["required"] = [names.get(key, key) for key in schema["required"]]
    return changed


def _any(names: Iterable[str]) -> str:
    """A pattern for one of the names, or for nothing at all if there are none."""
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) or r"(?!)"
