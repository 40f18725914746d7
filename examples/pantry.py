"""An environment of your own to start from: the jars of a pantry. docs/environments.md goes through it line by line."""

import random
from dataclasses import dataclass

from tracemill.environments import Draft, Environment, Row, Table, ToolError, goal, tool


@dataclass(frozen=True)
class Jar(Row):
    id: str
    content: str


class Pantry(Environment):
    name = "pantry"
    policy = "You look after the jars of a pantry. Only an empty jar is filled. You cannot buy anything; the kitchen does that."
    jars: Table[Jar]
    words = {
        "refill.opening": ["<greet><can_you> put {food} into jar {jar_id}? What is in it now can go.<tail>"],
        "refill.answer": ["<opener> Jar {jar_id} now holds {food}.<closing>", "<opener> The {food} is in jar {jar_id}.<closing>"],
        "buy_more.opening": ["<greet><can_you> buy two bags of flour?<tail>", "<greet>We are out of flour, please buy some.<tail>"],
        "buy_more.answer": ["<sorry> I cannot buy anything; the kitchen does that.<closing>"],
    }

    def build(self, rng: random.Random) -> None:
        for number, food in enumerate(rng.sample(("barley", "beans", "cocoa", "honey", "millet", "oats", "rice", "sugar"), 8), 101):
            self.jars.put(Jar(f"J-{number}", food))

    @tool("read")
    def get_jar(self, jar_id: str) -> Jar:
        """Look up what is in a jar."""
        return self.jars[jar_id]

    @tool("irreversible")
    def empty_jar(self, jar_id: str) -> Jar:
        """Throw away what is in a jar."""
        return self.jars.update(self.jars[jar_id], content="nothing")

    @tool("write")
    def fill_jar(self, jar_id: str, food: str) -> Jar:
        """Fill an empty jar with a food."""
        if self.jars[jar_id].content != "nothing":
            raise ToolError("not_allowed", f"{jar_id} still holds {self.jars[jar_id].content}")
        return self.jars.update(self.jars[jar_id], content=food)

    @goal(kinds=("tool_call",))
    def buy_more(self, g: Draft) -> None:
        g.refuse()

    @goal()
    def refill(self, g: Draft) -> None:
        jar, other = g.some(self.jars, 2)
        g.know(jar_id=jar.id, food=other.content)
        g.call("get_jar", jar_id=jar.id, why="what is in the jar has to be known first")
        g.call("empty_jar", jar_id=jar.id, why="the old content has to go first", confirm=f"throw away the {jar.content} in {jar.id}")
        g.call("fill_jar", jar_id=jar.id, food=other.content, why=f"the empty jar has to be filled with {other.content}")
        g.expect("jars", jar.id, content=other.content)
        g.tell(jar.id, other.content)
