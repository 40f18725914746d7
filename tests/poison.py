"""A fake environment that takes its process down, as a broken native library would do to an actor, or holds it up."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

from tracemill.generators.environments.base import Environment, Row, Table
from tracemill.generators.environments.goal import Draft, goal
from tracemill.generators.environments.tool import tool
from tracemill.trace import Json

FREE = 20
"""Bottles that a process may open; for more it waits until there is the file that GATE names. So a run of many is sure not to
be over before something is done to it."""


@dataclass(frozen=True)
class Bottle(Row):
    id: str
    deadly: bool


class Cellar(Environment):
    name = "cellar"
    policy = "Look at a bottle and say what it is."
    words = {  # noqa: RUF012 - as in every environment
        "look.opening": ["<greet>What is in bottle {bottle}?<tail>"],
        "look.answer": ["<finding> Bottle {bottle} holds {what}."],
    }
    bottles: Table[Bottle]
    opened = 0

    def build(self, rng: random.Random) -> None:
        for number in range(60):
            self.bottles.put(Bottle(f"B-{number:03}", number == 7))

    @tool("read")
    def open_bottle(self, bottle: str) -> Json:
        """Open a bottle and see."""
        if self.bottles[bottle].deadly and "MILLING" in os.environ:
            os._exit(1)
        Cellar.opened += 1
        while Cellar.opened > FREE and "GATE" in os.environ and not Path(os.environ["GATE"]).exists():
            time.sleep(0.05)
        return {"bottle": bottle, "holds": "wine"}

    @goal(kinds=("tool_call",))
    def look(self, g: Draft) -> None:
        bottle = g.pick(self.bottles)
        g.know(bottle=bottle.id)
        g.put(what="wine")
        g.call("open_bottle", bottle=bottle.id, why="nobody knows what is in it")
        g.tell("wine", bottle.id)
