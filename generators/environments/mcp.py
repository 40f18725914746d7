"""MCP servers as an environment: tools that other people's programs run, on files that are there for one rollout only.

A YAML file names the servers, what is in the sandbox at first, and the goals; docs/mcp.md describes it. Each rollout
has its own sandbox folder and its own server processes. Its state is what the files of the sandbox have become:
table `files`, by path. Agents see the sandbox as /sandbox wherever it really is, so that two rollouts read the same.
"""

from __future__ import annotations

import asyncio
import base64
import fnmatch
import os
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import ClassVar, Self

from tracemill.errors import SchemaError
from tracemill.generators.environments import mcp_goals
from tracemill.generators.environments.base import Environment, Result, ToolError, failed
from tracemill.generators.environments.catalogue import BUILT_IN
from tracemill.generators.environments.goal import leaves
from tracemill.generators.environments.mcp_config import SANDBOX, McpConfig, problems, read, refused
from tracemill.generators.environments.mcp_session import Session
from tracemill.generators.environments.tool import Tool
from tracemill.generators.faults import FaultPlan
from tracemill.trace import Json, Kind, Persona, Scenario, ToolDefinition


class McpEnvironment(Environment):
    """Base of the classes that `mcp_environment` makes."""

    instant = False
    config: ClassVar[McpConfig]
    here: ClassVar[Path]
    remote: ClassVar[Mapping[str, str]]
    """Tools of the servers: which server runs which."""
    own_toolbox: ClassVar[Mapping[str, Tool]]

    def __init__(self, world: int, faults: FaultPlan | None = None) -> None:
        super().__init__(world, faults)
        self._session: Session
        self._initial: dict[str, dict[str, Json]] = {}
        self._shown = ""  # what the conversation can have shown of paths
        self._invented: dict[str, bool] = {}  # by argument, as it was when it was first used

    # --- what it is ---

    @classmethod
    def toolbox(cls) -> Mapping[str, Tool]:
        return cls.own_toolbox

    @classmethod
    def goal_templates(cls) -> dict[str, tuple[Kind, ...]]:
        """For `goal.templates`."""
        return {goal.name: mcp_goals.kinds(goal, cls.toolbox()) for goal in cls.config.goals}

    @classmethod
    def draw_goal(cls, template: str, *, index: int, seed: int, kind: Kind, world: int, persona: Persona, rng: random.Random) -> Scenario:
        """For `goal.draw`. The world has no part in it: all rollouts start from the file's set-up."""
        goal = next(goal for goal in cls.config.goals if goal.name == template)
        return mcp_goals.scenario(
            goal, cls.toolbox(), cls.grammar(), cls.config.rules(), rng, persona,
            index=index, seed=seed, kind=kind, environment=cls.name, world=world,
        )  # fmt: skip

    # --- one rollout ---

    @classmethod
    async def reset(cls, scenario: Scenario, *, faults: bool = True) -> Self:
        env = cls(scenario.world, FaultPlan(scenario.faults if faults else ()))
        env._session = await Session.open(cls.config, cls.here)
        env._initial = env._files()
        heard = [scenario.opening, *(slot.value for slot in scenario.slots), *(one.says for one in scenario.interjections)]
        env._shown = "\n".join((cls.policy_text(), *heard))
        return env

    async def close(self) -> None:
        await self._session.close()

    async def call(self, name: str, arguments: Json) -> Result:
        if name not in self.remote:
            return self.run(name, arguments)
        prepared = self.admit(name, arguments)
        if isinstance(prepared, Result):
            return prepared
        marked, arguments, fault = prepared
        if fault is not None and fault.kind == "wrong_record":
            arguments = fault.detail["arguments"]
        self._note_paths(arguments)
        before = {} if marked.effect == "read" else self._files()
        try:
            content = await self._session.call(self.remote[name], name, arguments)
        except ToolError as error:
            # Unlike a tool of our own, a server that fails may have changed something first.
            told = {"code": error.code, "message": error.message, "retryable": error.code == "timeout"}
            result = failed(marked.effect, told, self._touched(marked, before))
        else:
            result = self.report(marked, content, self._touched(marked, before), fault)
        self._shown += "\n" + result.text
        return result

    def changes(self) -> dict[str, Json]:
        """Rows that differ from the initial state; the content of a file is a row of the table `files`."""
        return {**super().changes(), **{f"files/{path}": row for path, row in _difference(self._initial, self._files()).items()}}

    async def row(self, table: str, key: str) -> dict[str, Json] | None:
        if table != "files":
            return await super().row(table, key)
        return self._found(key)

    def is_identifier(self, text: str) -> bool:
        """Whether a text is the path of a file in the sandbox that is to be seen before it is used.

        Neither the name of a file that was only to be created was invented, nor a path that was put together from
        parts that had been shown (a folder the user named, a name in its listing), though never as a whole.
        """
        return self._invented.get(text, self._names_file(text))

    def _note_paths(self, arguments: Json) -> None:
        for text in leaves(arguments):
            if isinstance(text, str) and text not in self._invented:
                parts = [part for part in text.removeprefix(SANDBOX).split("/") if part]
                self._invented[text] = self._names_file(text) and not all(part in self._shown for part in parts)

    def _names_file(self, text: str) -> bool:
        path = self._session.inside(text)
        try:
            return path is not None and path.is_file()
        except OSError:  # a text that is too long for a path
            return False

    def _touched(self, marked: Tool, before: Mapping[str, dict[str, Json]]) -> tuple[str, ...]:
        """What a call changed. Hidden files are left out: no tool names them, so nothing could confirm the change."""
        if marked.effect == "read":
            return ()
        changed = _difference(before, self._files())
        return tuple(f"files/{path}" for path in changed if not any(part.startswith(".") for part in PurePosixPath(path).parts))

    def _files(self) -> dict[str, dict[str, Json]]:
        """The sandbox's files, and its empty folders (their path ends in a slash), by path."""
        root = self._session.root
        if not root.is_dir():
            raise RuntimeError(f"the sandbox of this {self.name!r} is gone: the rollout is closed")
        found: dict[str, dict[str, Json]] = {}
        for folder, folders, names in os.walk(root):
            at = Path(folder)
            inner = at.relative_to(root).as_posix()
            prefix = "" if inner == "." else f"{inner}/"
            folders[:] = sorted(name for name in folders if not self._ignored(prefix + name))
            links = [name for name in folders if (at / name).is_symlink()]
            for name in sorted([*names, *links]):
                if not self._ignored(prefix + name):
                    with suppress(FileNotFoundError):  # a server's own temporary file, gone by now
                        found[prefix + name] = self._row(at / name)
            if prefix and not folders and not names:
                found[prefix] = self._row(at)
        return dict(sorted(found.items()))

    def _ignored(self, path: str) -> bool:
        name = path.rsplit("/", 1)[-1]
        return any(fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(name, pattern) for pattern in self.config.ignore)

    def _found(self, key: str) -> dict[str, Json] | None:
        path = self._session.inside(key.rstrip("/"))
        if path is None or not os.path.lexists(path) or key.endswith("/") != path.is_dir():
            return None
        return self._row(path)

    def _row(self, path: Path) -> dict[str, Json]:
        if path.is_symlink():
            return {"link": self._session.outward(str(path.readlink()))}
        if not path.is_file():
            return {"folder": path.is_dir()}  # a pipe or a socket is there as well, and must not be read
        raw = path.read_bytes()
        try:
            return {"content": self._session.outward(raw.decode("utf-8"))}
        except UnicodeDecodeError:
            return {"base64": base64.b64encode(raw).decode("ascii")}


def _difference(before: Mapping[str, dict[str, Json]], now: Mapping[str, dict[str, Json]]) -> dict[str, dict[str, Json] | None]:
    return {path: now.get(path) for path in sorted({*before, *now}) if before.get(path) != now.get(path)}


# --- making the class ---------------------------------------------------------------------------------------


def mcp_environment(path: str) -> type[Environment]:
    """The environment that a YAML file describes. Its servers are started once, to see what they offer.

    Raises ConfigError with everything that is wrong with the file, EnvironmentMissing where a server does not start.
    """
    file = Path(path)
    config = read(file)
    here = file.resolve().parent
    with ThreadPoolExecutor(1) as pool:  # in a thread of its own: there may be a running event loop in this one
        offered = pool.submit(asyncio.run, _offered(config, here)).result()
    remote, found = {}, []
    toolbox: dict[str, Tool] = {}
    for server, listed in offered.items():
        limited = config.servers[server].tools
        for tool in listed:
            if limited is not None and tool.name not in limited:
                continue
            known = tool.model_copy(update={"effect": config.effects.get(tool.name, tool.effect)})
            try:
                toolbox.setdefault(tool.name, Tool(known))
            except SchemaError as reason:
                found.append(f"servers.{server}: tool {tool.name!r} has {reason}")
            remote[tool.name] = server
    own = Environment.toolbox()
    toolbox |= own
    found += problems(config, toolbox, own, {server: [tool.name for tool in listed] for server, listed in offered.items()})
    if config.name in BUILT_IN:
        found.append(f"name: there is a built-in environment {config.name!r}")
    if found:
        raise refused(file, found)
    title = "".join(part.title() for part in config.name.split("_"))
    described = {
        "__module__": __name__, "name": config.name, "policy": config.policy, "words": config.rules(),
        "config": config, "here": here, "remote": remote, "own_toolbox": toolbox,
    }  # fmt: skip
    return type(title, (McpEnvironment,), described)


async def _offered(config: McpConfig, here: Path) -> dict[str, list[ToolDefinition]]:
    session = await Session.open(config, here)
    try:
        return session.offered()
    finally:
        await session.close()
