"""Finds environments by name: a built-in one, a user's class `module:Class`, or an MCP file `servers.yaml`."""

from __future__ import annotations

import difflib
import importlib

from tracemill.errors import EnvironmentMissing
from tracemill.generators.environments.base import Environment

BUILT_IN = {
    "store": "tracemill.generators.environments.store.goals:Store",
    "calendar": "tracemill.generators.environments.calendar.goals:Calendar",
    "travel": "tracemill.generators.environments.travel.goals:Travel",
    "bank": "tracemill.generators.environments.bank.goals:Bank",
    "helpdesk": "tracemill.generators.environments.helpdesk.goals:Helpdesk",
    "workspace": "tracemill.generators.environments.workspace.goals:Workspace",
}


_LOADED: dict[str, type[Environment]] = {}
"""By reference and by the class's own name, which is what a trace carries."""


def environment(name: str) -> type[Environment]:
    """The environment of that name, or of that reference (`module:Class`, `servers.yaml`), which from then on is known
    by its name too. Raises EnvironmentMissing with what was looked for and what there is."""
    if name not in _LOADED:
        found = _load(name)
        other = _LOADED.get(found.name)
        if other is not None or (found.name in BUILT_IN and name != found.name):
            raise EnvironmentMissing(f"environment {name!r} calls itself {found.name!r}, as another one does: give it a name of its own")
        _LOADED[name] = found
        _LOADED[found.name] = found
    return _LOADED[name]


def _load(name: str) -> type[Environment]:
    if name.endswith((".yaml", ".yml")):
        from tracemill.generators.environments.mcp import mcp_environment  # needs the extra `mcp`

        return mcp_environment(name)
    target = BUILT_IN.get(name, name)
    if ":" not in target:
        near = difflib.get_close_matches(name, BUILT_IN, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise EnvironmentMissing(
            f"no environment {name!r}{hint}",
            [f"built in: {', '.join(BUILT_IN)}", "your own class: module:Class", "MCP servers: a .yaml file"],
        )
    module, _, attribute = target.partition(":")
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as reason:
        absent = isinstance(reason, ModuleNotFoundError) and reason.name == module
        where = ["a module is looked for in the working folder first, then where Python looks for modules"] if absent else []
        raise EnvironmentMissing(f"environment {name!r} cannot be loaded: {reason}", where) from reason
    if not (isinstance(found, type) and issubclass(found, Environment)):
        raise EnvironmentMissing(f"{name!r} is no subclass of tracemill.generators.environments.base.Environment")
    return found
