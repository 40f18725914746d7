"""All that an environment of your own is written with, in one place; docs/environments.md shows how."""

from tracemill.generators.environments.base import Environment, Row, Table, ToolError
from tracemill.generators.environments.facts import CANNOT
from tracemill.generators.environments.goal import Draft, goal
from tracemill.generators.environments.tool import tool

__all__ = ["CANNOT", "Draft", "Environment", "Row", "Table", "ToolError", "goal", "tool"]
