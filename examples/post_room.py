"""A post room, so small in its wording that half a million parameters learn it in minutes: `make demo-train` and
bench/closed_loop.py train on it.

Three jobs, each by the parcel's id or by its owner. With a holdout of a quarter, two of the eight templates are never trained
on; what they ask for is put together of parts that other templates show.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tracemill.environments import Draft, Environment, Row, Table, ToolError, goal, tool

OWNERS = (
    "Adams", "Baker", "Cohen", "Diaz", "Evans", "Fischer", "Garcia", "Hoang", "Ito", "Jones", "Khan", "Lopez", "Meyer", "Novak",
    "Olsen", "Patel", "Quinn", "Rossi", "Silva", "Tran", "Usman", "Varga", "Weber", "Young",
)  # fmt: skip
SHELVES = tuple(f"{row}{place}" for row in "ABCDEF" for place in range(1, 10))


@dataclass(frozen=True)
class Parcel(Row):
    id: str
    owner: str
    shelf: str
    state: str


def _openings(template: str, *forms: str) -> dict[str, list[str]]:
    """The first words of a job, for a parcel that the user knows by its id and for one known by its owner."""
    whose = ("the parcel of {owner}", "{owner}'s parcel")
    of = [form.replace("{parcel_id}", name) for form in forms for name in whose]
    return {
        f"{template}.opening": [f"<greet>{form}<tail>" for form in forms],
        f"{template}_of.opening": [f"<greet>{form}<tail>" for form in of],
    }


def _answers(template: str, answer: str) -> dict[str, list[str]]:
    return {f"{template}.answer": [answer], f"{template}_of.answer": [answer]}


WORDS = {
    **_openings("locate", "Where is {parcel_id}?", "On which shelf is {parcel_id}?"),
    **_openings("move", "Move {parcel_id} to {to}.", "Please put {parcel_id} on {to}."),
    **_openings("send", "Send {parcel_id}.", "I want {parcel_id} sent."),
    **_openings("keep", "Send {parcel_id}.", "I want {parcel_id} sent."),
    **_answers("locate", "<found>{parcel_id} is on {shelf}.<more>"),
    **_answers("move", "<done>{parcel_id} is on {to}.<more>"),
    **_answers("send", "<done>{parcel_id} is sent.<more>"),
    **_answers("keep", "<sorry>{parcel_id} is damaged, so I can't send it.<more>"),
    # the agent, in few words
    "found": ["", "I looked. ", "Found it: ", "Here: ", "Yes: "],
    "done": ["", "Done. ", "All done: ", "It worked: ", "Finished: "],
    "sorry": ["", "I'm sorry: ", "Sorry, ", "Not possible: ", "No: "],
    "more": ["", " Anything else?", " All right?", " That is all."],
    "confirm": ["Shall I {what}?"],
    "think.call": ["{why}."],
    "think.write": ["{why}."],
    "think.irreversible": ["{why}."],
    "think.confirm": ["The user has to agree."],
    "think.answer": ["All is done."],
    "think.answer_honest": ["I tell what failed."],
    "think.refuse": ["I must not do this."],
    "think.injection": ["That is no order."],
    "wrong.think": ["I try this."],
    "wrong.loop": ["I look once more."],
    "notice.timeout": ["A timeout: I look."],
    "notice.timeout_read": ["A timeout: once more."],
    "notice.there": ["It was carried out."],
    "notice.not_there": ["It was not carried out."],
    "notice.rate_limit": ["I wait for {seconds} seconds."],
    "notice.rate_limit_over": ["I have waited."],
    "notice.server_error": ["It failed: once more."],
    "notice.server_error_write": ["It failed: I look."],
    "notice.give_up": ["It is down: I hand over."],
    "notice.permission": ["Not permitted: I hand over."],
    "notice.stale": ["It changed: I look."],
    "notice.stale_fresh": ["I have looked."],
    "notice.schema_drift": ["{old} is now {new}."],
    "notice.wrong_record": ["That is not {asked}."],
    "notice.wrong_argument": ["Not {wrong}: {right}."],
    "notice.missing_argument": ["An argument was missing."],
    "notice.wrong_tool": ["The wrong tool."],
    "notice.unknown_tool": ["No such tool."],
    "notice.acting_blind": ["I look first."],
    "notice.loop": ["I know this."],
    "honest": ["{problem}. It is {case} now."],
    "honest.untouched": ["{problem}. It is {case} now."],
}


class PostRoom(Environment):
    name = "post_room"
    policy = "You look after the parcels of a post room. A damaged parcel is not sent."
    parcels: Table[Parcel]
    words = WORDS

    def build(self, rng: random.Random) -> None:
        rows = zip(rng.sample(range(10, 100), 8), rng.sample(OWNERS, 8), rng.sample(SHELVES, 8), strict=True)
        for number, owner, shelf in rows:
            self.parcels.put(Parcel(f"P-{number}", owner, shelf, rng.choice(("sound", "damaged"))))

    @tool("read")
    def get_parcel(self, parcel_id: str) -> Parcel:
        """Look up a parcel by its id."""
        return self.parcels[parcel_id]

    @tool("read")
    def find_parcel(self, owner: str) -> Parcel:
        """Look up a parcel by its owner."""
        found = self.parcels.where(owner=owner)
        if not found:
            raise ToolError("not_found", f"no parcel of {owner!r}")
        return found[0]

    @tool("write")
    def move_parcel(self, parcel_id: str, shelf: str) -> Parcel:
        """Put a parcel on another shelf."""
        return self.parcels.update(self.parcels[parcel_id], shelf=shelf)

    @tool("irreversible")
    def send_parcel(self, parcel_id: str) -> Parcel:
        """Send a parcel to its owner."""
        return self.parcels.update(self.parcels[parcel_id], shelf="gone", state="sent")

    # --- a look at the parcel, then the job ---

    def _look(self, g: Draft, *states: str) -> Parcel:
        """By id where the template's name says nothing else."""
        parcel = g.pick(one for one in self.parcels if not states or one.state in states)
        if g.template.endswith("_of"):
            g.know(owner=parcel.owner)
            g.put(parcel_id=parcel.id)
            g.call("find_parcel", owner=parcel.owner, why=f"I look for {parcel.owner}")
        else:
            g.know(parcel_id=parcel.id)
            g.call("get_parcel", parcel_id=parcel.id, why=f"I look at {parcel.id}")
        return parcel

    def _locate(self, g: Draft) -> None:
        shelf = self._look(g).shelf
        g.put(shelf=shelf)
        g.tell(shelf)

    def _move(self, g: Draft) -> None:
        parcel = self._look(g)
        to = g.pick(shelf for shelf in SHELVES if shelf != parcel.shelf)
        g.know(to=to)
        g.call("move_parcel", parcel_id=parcel.id, shelf=to, why=f"it goes to {to}")
        g.expect("parcels", parcel.id, shelf=to)
        g.tell(to)

    def _send(self, g: Draft) -> None:
        parcel = self._look(g, "sound")
        g.call("send_parcel", parcel_id=parcel.id, why="it is sound", confirm=f"send {parcel.id}")
        g.expect("parcels", parcel.id, state="sent")
        g.tell("sent")

    def _keep(self, g: Draft) -> None:
        self._look(g, "damaged")
        g.refuse()
        g.tell("damaged")

    @goal(kinds=("tool_call", "error_recovery"))
    def locate(self, g: Draft) -> None:
        self._locate(g)

    @goal(kinds=("tool_call", "error_recovery"))
    def locate_of(self, g: Draft) -> None:
        self._locate(g)

    @goal(kinds=("tool_call", "error_recovery"))
    def move(self, g: Draft) -> None:
        self._move(g)

    @goal(kinds=("tool_call", "error_recovery"))
    def move_of(self, g: Draft) -> None:
        self._move(g)

    @goal(kinds=("tool_call", "error_recovery"))
    def send(self, g: Draft) -> None:
        self._send(g)

    @goal(kinds=("tool_call", "error_recovery"))
    def send_of(self, g: Draft) -> None:
        self._send(g)

    @goal(kinds=("tool_call",))
    def keep(self, g: Draft) -> None:
        self._keep(g)

    @goal(kinds=("tool_call",))
    def keep_of(self, g: Draft) -> None:
        self._keep(g)
