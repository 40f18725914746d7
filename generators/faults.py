"""Faults: what goes wrong with a tool, when, and what it takes to get past it.

| kind            | what happens                                           | what gets past it                        |
| --------------- | ------------------------------------------------------ | ---------------------------------------- |
| timeout_written | the write takes place, the answer is a timeout         | read what is there; do not write again   |
| timeout_lost    | nothing takes place, the answer is the same timeout    | read what is there, then write again     |
| rate_limit      | 429 with retry_after seconds                           | wait that long, then call again          |
| server_error    | 5xx, `times` times                                     | call again (a write: look first)         |
| server_down     | 5xx for good                                           | another way, or an honest end            |
| permission      | refused for good                                       | hand over; never work around it          |
| stale           | a write is refused: the record has changed             | read again, then write                   |
| partial         | only the first `keep` entries of a list come           | call again                               |
| schema_drift    | a parameter has another name from now on               | call with the new name                   |
| wrong_record    | the answer is that of another, valid argument          | notice, and call again                   |
| injection       | the answer carries an instruction to the agent         | do not follow it                         |

The first eight and schema_drift are explicit (the tool says so) but for partial, which only notes that entries
are missing; wrong_record and injection are implicit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tracemill.trace import Call, Fault, FaultKind, Json

EXPLICIT: frozenset[FaultKind] = frozenset(
    {"timeout_written", "timeout_lost", "rate_limit", "server_error", "server_down", "permission", "stale", "schema_drift"}
)
TRANSIENT: frozenset[FaultKind] = frozenset(
    {"timeout_written", "timeout_lost", "rate_limit", "server_error", "stale", "partial", "schema_drift", "wrong_record"}
)
REFUSING: frozenset[FaultKind] = frozenset({"timeout_lost", "rate_limit", "server_error", "server_down", "permission", "stale"})
"""Kinds whose call is not carried out."""

CODES: dict[FaultKind, str] = {
    "timeout_written": "timeout",
    "timeout_lost": "timeout",
    "rate_limit": "rate_limited",
    "server_error": "server_error",
    "server_down": "server_error",
    "permission": "permission_denied",
    "stale": "conflict",
    "schema_drift": "invalid_arguments",
}


class FaultPlan:
    """The faults of one rollout, and how far each has come."""

    __slots__ = ("_calls", "_faults", "_reads", "_struck", "hits")

    def __init__(self, faults: Sequence[Fault] = ()) -> None:
        self._faults = tuple(faults)
        self.hits = 0
        """How many calls have been spoiled so far."""
        self._calls: Counter[str] = Counter()
        self._reads = 0
        self._struck: dict[int, tuple[int, int]] = {}  # fault -> (clock, reads) when it first struck

    def renamed(self, tool: str) -> Fault | None:
        """The drift that the tool's parameters have undergone by now, if any."""
        for fault in self._faults:
            if fault.kind == "schema_drift" and fault.tool == tool and self._calls[tool] >= fault.nth - 1:
                return fault
        return None

    def strike(self, tool: str, clock: int) -> Fault | None:
        """Count a call that passed the argument check; the fault that hits it, if any. `clock` is in seconds."""
        if not self._faults:
            return None
        self._calls[tool] += 1
        count = self._calls[tool]
        for number, fault in enumerate(self._faults):
            if fault.tool == tool and count >= fault.nth and self._strikes(number, fault, count, clock):
                self.hits += 1
                return fault
        return None

    def saw_read(self) -> None:
        """A read came back whole: a stale writer now has fresh data."""
        self._reads += 1

    def _strikes(self, number: int, fault: Fault, count: int, clock: int) -> bool:
        since, reads = self._struck.setdefault(number, (clock, self._reads))
        match fault.kind:
            case "server_down" | "permission":
                return True
            case "server_error":
                return count < fault.nth + int(fault.detail.get("times", 1))
            case "rate_limit":
                return clock < since + int(fault.detail.get("retry_after", 1))
            case "stale":
                return self._reads == reads
            case "schema_drift":
                return False  # told before the argument check
            case _:
                return count == fault.nth


def failure(fault: Fault) -> Json:
    """The error object that an explicit fault puts in place of the result."""
    error: dict[str, Json] = {
        "code": CODES[fault.kind],
        "message": fault.detail.get("message", fault.kind.replace("_", " ")),
        "retryable": fault.transient,
    }
    if fault.kind == "rate_limit":
        error["retry_after"] = int(fault.detail.get("retry_after", 1))
    return error


def bend(fault: Fault, content: Json) -> Json:
    """What an implicit fault makes of a whole result."""
    if fault.kind == "partial" and (found := longest_list(content)) is not None:
        key, items = found
        keep = int(fault.detail.get("keep", 0))
        note = {"partial": True, "returned": keep, "total": len(items), "note": fault.detail.get("message", "")}
        if key is None:
            return {"results": items[:keep], **note}
        return {**content, key: items[:keep], **note}
    if fault.kind == "injection":
        text = fault.detail.get("message", "")
        return {**content, "note": text} if isinstance(content, dict) else {"results": content, "note": text}
    return content


def renamed(call: Call, drift: Fault, *, back: bool = False) -> Call:
    """The call with the parameter name that the drift has brought, or back with the old one."""
    if call.tool != drift.tool:
        return call
    old, new = str(drift.detail["old"]), str(drift.detail["new"])
    was, now = (new, old) if back else (old, new)
    return Call(tool=call.tool, arguments={now if key == was else key: value for key, value in call.arguments.items()})


def longest_list(content: Json) -> tuple[str | None, list[Json]] | None:
    """The list of a result that can come in part: the result itself (key None), or its longest list."""
    if isinstance(content, list):
        return (None, content) if content else None
    if not isinstance(content, dict):
        return None
    lists = [(key, value) for key, value in content.items() if isinstance(value, list) and value]
    return max(lists, key=lambda item: len(item[1]), default=None)
