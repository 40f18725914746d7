"""Ways to tamper with a trace: each takes the record as plain JSON and gives the tampered one, or None where it does
not apply. They may change what they are given.

They are careful: whoever takes a message out renumbers the calls and moves the marks that point into the conversation,
so that what is found is not a mere slip.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from itertools import pairwise
from random import Random
from typing import Any

from tracemill.trace import fingerprint

Plain = dict[str, Any]
Tamper = Callable[[Plain, Random], Plain | None]
KINDS: dict[str, Tamper] = {}
ERROR = '{"error": '


def kind(tamper: Tamper) -> Tamper:
    KINDS[tamper.__name__] = tamper
    return tamper


def seal(row: Plain) -> Plain:
    """The record with the digest that fits what it says now."""
    rest = {key: value for key, value in row.items() if key != "digest"}
    return {**row, "digest": fingerprint({**rest, "tools": fingerprint(row["tools"])})}


# --- finding one's way in a conversation --------------------------------------------------------------------


def said_by(row: Plain, role: str) -> list[int]:
    return [at for at, message in enumerate(row["messages"]) if message["role"] == role]


def spoken(row: Plain) -> list[int]:
    """The agent's messages without calls, but for the answer."""
    return [at for at in said_by(row, "assistant") if not row["messages"][at].get("tool_calls")][:-1]


def calls(row: Plain) -> Iterator[tuple[int, Plain, str]]:
    """(message, call, result) of every call."""
    results = {m["tool_call_id"]: m["content"] for m in row["messages"] if m["role"] == "tool"}
    for at, message in enumerate(row["messages"]):
        for call in message.get("tool_calls") or ():
            yield at, call, results[call["id"]]


def alone(row: Plain, effects: Collection[str]) -> list[int]:
    """Messages in the loss with one call, which has such an effect and succeeded."""
    found = []
    for at, call, result in calls(row):
        message = row["messages"][at]
        right = len(message["tool_calls"]) == 1 and message["train"] and not result.startswith(ERROR)
        if right and call["function"]["name"] != "update_plan" and row["effects"].get(call["function"]["name"]) in effects:
            found.append(at)
    return found


def pick(rng: Random, found: Collection[Any]) -> Any:
    return rng.choice(sorted(found)) if found else None


def renumbered(row: Plain) -> Plain:
    number = 0
    names: dict[str, str] = {}
    for message in row["messages"]:
        for call in message.get("tool_calls") or ():
            number += 1
            names[call["id"]] = call["id"] = f"call_{number}"
        if message["role"] == "tool":
            message["tool_call_id"] = names[message["tool_call_id"]]
    return row


def without(row: Plain, gone: Collection[int]) -> Plain:
    """The record without these messages, put in order again."""
    place = {old: new for new, old in enumerate(at for at in range(len(row["messages"])) if at not in gone)}
    row["messages"] = [message for at, message in enumerate(row["messages"]) if at not in gone]
    for name in ("wrong", "recovery"):
        if "recovery" in row:
            row["recovery"][name] = [place[at] for at in row["recovery"][name] if at in place]
    return renumbered(row)


def with_copy(row: Plain, at: int) -> Plain:
    """The record with the message that calls and the result that follows it twice."""
    shift = {old: old if old < at + 2 else old + 2 for old in range(len(row["messages"]))}
    again = [{**row["messages"][at], "tool_calls": [{**row["messages"][at]["tool_calls"][0], "id": "again"}]}]
    again += [{**row["messages"][at + 1], "tool_call_id": "again"}]
    row["messages"][at + 2 : at + 2] = again
    for name in ("wrong", "recovery"):
        if "recovery" in row:
            row["recovery"][name] = [shift[one] for one in row["recovery"][name]]
    return renumbered(row)


def turned(text: str, rng: Random) -> str | None:
    """The text with one digit changed."""
    places = [match.start() for match in re.finditer(r"\d", text)]
    if not places:
        return None
    at = rng.choice(places)
    return text[:at] + str((int(text[at]) + rng.randint(1, 8)) % 10) + text[at + 1 :]


# --- calls --------------------------------------------------------------------------------------------------


@kind
def changed_argument(row: Plain, rng: Random) -> Plain | None:
    """An identifier, in a call that says so in its result or changes something."""
    found = [
        (arguments, name)
        for _, call, result in calls(row)
        if call["function"]["name"] not in ("update_plan", "transfer_to_human")
        for arguments in [call["function"]["arguments"]]
        for name, value in arguments.items()
        if isinstance(value, str) and re.fullmatch(r"[A-Z]+-?\d{2,}", value) and (value in result or result.startswith(ERROR))
    ]
    if not found:
        return None
    arguments, name = rng.choice(found)
    arguments[name] = turned(arguments[name], rng)
    return row


@kind
def changed_number(row: Plain, rng: Random) -> Plain | None:
    """A number in a write that took place."""
    found = [
        (call["function"]["arguments"], name)
        for at, call, _ in calls(row)
        if at in alone(row, ("write", "irreversible"))
        for name, value in call["function"]["arguments"].items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]
    if not found:
        return None
    arguments, name = rng.choice(found)
    arguments[name] += 1
    return row


@kind
def invented_identifier(row: Plain, rng: Random) -> Plain | None:
    """Throughout the conversation but for what the user said: call and results agree on an id that does not exist."""
    ids = {
        value
        for _, call, _ in calls(row)
        for value in call["function"]["arguments"].values()
        if isinstance(value, str) and re.fullmatch(r"[A-Z]+-\d{2,}", value)
    }
    wanted = pick(rng, ids)
    if wanted is None:
        return None
    new = turned(wanted, rng)
    for message in row["messages"]:
        if message["role"] == "tool":
            message["content"] = message["content"].replace(wanted, new)
        for call in message.get("tool_calls") or ():
            arguments = call["function"]["arguments"]
            call["function"]["arguments"] = {name: new if value == wanted else value for name, value in arguments.items()}
    return row


@kind
def other_tool(row: Plain, rng: Random) -> Plain | None:
    found = [call for _, call, _ in calls(row) if call["function"]["name"] != "update_plan"]
    if not found:
        return None
    call = rng.choice(found)
    others = sorted(row["effects"].keys() - {call["function"]["name"]})
    call["function"]["name"] = rng.choice(others)
    for message in row["messages"]:
        if message["role"] == "tool" and message["tool_call_id"] == call["id"]:
            message["name"] = call["function"]["name"]
    return row


@kind
def dropped_write(row: Plain, rng: Random) -> Plain | None:
    at = pick(rng, alone(row, ("write", "irreversible")))
    return None if at is None else without(row, {at, at + 1})


@kind
def dropped_lookup(row: Plain, rng: Random) -> Plain | None:
    at = pick(rng, alone(row, ("read",)))
    return None if at is None else without(row, {at, at + 1})


@kind
def dropped_result(row: Plain, rng: Random) -> Plain | None:
    at = pick(rng, said_by(row, "tool"))
    if at is None:
        return None
    del row["messages"][at]
    return row


@kind
def dropped_all_calls(row: Plain, rng: Random) -> Plain | None:
    """What is left is the opening and the answer."""
    made = {at for at, _, _ in calls(row)} | set(said_by(row, "tool"))
    return without(row, made) if made else None


@kind
def duplicated_write(row: Plain, rng: Random) -> Plain | None:
    """One that makes something new, so that its result cannot be the same again (setting a value twice does no harm)."""
    made = [at for at, call, _ in calls(row) if re.match(r"create|open|place|transfer|issue", call["function"]["name"])]
    at = pick(rng, set(made) & set(alone(row, ("write", "irreversible"))))
    return None if at is None else with_copy(row, at)


@kind
def duplicated_lookup(row: Plain, rng: Random) -> Plain | None:
    at = pick(rng, alone(row, ("read",)))
    return None if at is None else with_copy(row, at)


@kind
def reused_call_id(row: Plain, rng: Random) -> Plain | None:
    ids = [call["id"] for _, call, _ in calls(row)]
    if len(ids) < 2:
        return None
    old, new = rng.sample(ids, 2)
    for message in row["messages"]:
        for call in message.get("tool_calls") or ():
            call["id"] = new if call["id"] == old else call["id"]
        if message.get("tool_call_id") == old:
            message["tool_call_id"] = new
    return row


@kind
def wrong_call_id(row: Plain, rng: Random) -> Plain | None:
    ids = [call["id"] for _, call, _ in calls(row)]
    if not ids:
        return None
    old = rng.choice(ids)
    for message in row["messages"]:
        for call in message.get("tool_calls") or ():
            call["id"] = "call_0" if call["id"] == old else call["id"]
        if message.get("tool_call_id") == old:
            message["tool_call_id"] = "call_0"
    return row


@kind
def removed_reasoning(row: Plain, rng: Random) -> Plain | None:
    at = pick(rng, {at for at, _, _ in calls(row) if row["messages"][at]["train"]})
    if at is None:
        return None
    del row["messages"][at]["reasoning_content"]
    return row


@kind
def plan_with_a_cycle(row: Plain, rng: Random) -> Plain | None:
    found = [call for _, call, _ in calls(row) if call["function"]["name"] == "update_plan"]
    found = [call for call in found if len(call["function"]["arguments"]["subgoals"]) > 1]
    if not found:
        return None
    first, *_, last = rng.choice(found)["function"]["arguments"]["subgoals"]
    first["depends_on"], last["depends_on"] = [last["id"]], [first["id"]]
    return row


@kind
def plan_in_another_order(row: Plain, rng: Random) -> Plain | None:
    """The only plan is turned round, and with it the order that its result gives."""
    if sum(call["function"]["name"] == "update_plan" for _, call, _ in calls(row)) != 1:
        return None
    for at, call, result in calls(row):
        subgoals = call["function"]["arguments"].get("subgoals", [])
        if call["function"]["name"] != "update_plan" or len(subgoals) < 2 or any(len(one["depends_on"]) > 1 for one in subgoals):
            continue
        if any(one["depends_on"] != [before["id"]] for before, one in pairwise(subgoals)):
            continue
        for one, after in pairwise(subgoals):
            one["depends_on"] = [after["id"]]
        subgoals[-1]["depends_on"] = []
        ids = ", ".join(f'"{one["id"]}"' for one in reversed(subgoals))
        row["messages"][at + 1]["content"] = f'{{"accepted": true, "order": [{ids}]}}'
        return row if row["messages"][at + 1]["content"] != result else None
    return None


# --- results ------------------------------------------------------------------------------------------------


@kind
def edited_observation(row: Plain, rng: Random) -> Plain | None:
    found = [at for at in said_by(row, "tool") if re.search(r"\d", row["messages"][at]["content"])]
    at = pick(rng, found)
    if at is None:
        return None
    row["messages"][at]["content"] = turned(row["messages"][at]["content"], rng)
    return row


@kind
def edited_error_code(row: Plain, rng: Random) -> Plain | None:
    at = pick(rng, [at for at in said_by(row, "tool") if '"code": "' in row["messages"][at]["content"]])
    if at is None:
        return None
    text = row["messages"][at]["content"]
    row["messages"][at]["content"] = re.sub(r'"code": "\w+"', '"code": "unavailable"', text)
    return row


@kind
def error_made_a_success(row: Plain, rng: Random) -> Plain | None:
    at = pick(rng, [at for at in said_by(row, "tool") if row["messages"][at]["content"].startswith(ERROR)])
    if at is None:
        return None
    row["messages"][at]["content"] = '{"ok": true}'
    return row


@kind
def emptied_result(row: Plain, rng: Random) -> Plain | None:
    at = pick(rng, said_by(row, "tool"))
    if at is None:
        return None
    row["messages"][at]["content"] = ""
    return row


@kind
def swapped_results(row: Plain, rng: Random) -> Plain | None:
    found = said_by(row, "tool")
    if len(found) < 2:
        return None
    one, other = (row["messages"][at] for at in rng.sample(found, 2))
    if one["content"] == other["content"]:
        return None
    one["content"], other["content"] = other["content"], one["content"]
    return row


@kind
def renamed_result(row: Plain, rng: Random) -> Plain | None:
    at = pick(rng, said_by(row, "tool"))
    if at is None:
        return None
    row["messages"][at]["name"] += "_2"
    return row


# --- who says what ------------------------------------------------------------------------------------------


@kind
def swapped_messages(row: Plain, rng: Random) -> Plain | None:
    at = rng.randrange(1, len(row["messages"]) - 1)
    first, second = row["messages"][at : at + 2]
    if first == second:
        return None
    row["messages"][at : at + 2] = [second, first]
    return row


@kind
def dropped_question(row: Plain, rng: Random) -> Plain | None:
    """The agent's words before an answer of the user, which stays."""
    at = pick(rng, spoken(row))
    return None if at is None else without(row, {at})


@kind
def dropped_reply(row: Plain, rng: Random) -> Plain | None:
    """The user's answer to a question, which stays."""
    at = pick(rng, spoken(row))
    return None if at is None else without(row, {at + 1})


@kind
def dropped_confirmation(row: Plain, rng: Random) -> Plain | None:
    """Every question and its answer before a call that cannot be undone."""
    final = [at for at in alone(row, ("irreversible",)) if any(one < at for one in spoken(row))]
    at = pick(rng, final)
    if at is None:
        return None
    asked = [one for one in spoken(row) if one < at]
    return without(row, {*asked, *(one + 1 for one in asked)})


@kind
def dropped_exchange(row: Plain, rng: Random) -> Plain | None:
    """A question before a change that can be undone, with its answer."""
    final = min(alone(row, ("irreversible",)), default=len(row["messages"]))
    found = [at for at in spoken(row) if at > final or final == len(row["messages"])]
    at = pick(rng, found)
    return None if at is None else without(row, {at, at + 1})


@kind
def dropped_answer(row: Plain, rng: Random) -> Plain | None:
    row["messages"].pop()
    return row


@kind
def inserted_words(row: Plain, rng: Random) -> Plain | None:
    """The agent speaks and goes on without waiting for an answer."""
    at = pick(rng, {at for at, _, _ in calls(row)})
    if at is None:
        return None
    row["messages"].insert(at, {"role": "assistant", "content": "One moment, please.", "train": True})
    return row


@kind
def removed_interjection(row: Plain, rng: Random) -> Plain | None:
    said = {one["says"] for one in row["scenario"].get("interjections", [])}
    at = pick(rng, [at for at in said_by(row, "user") if row["messages"][at]["content"] in said])
    return None if at is None else without(row, {at})


@kind
def delayed_interjection(row: Plain, rng: Random) -> Plain | None:
    """The user speaks up one round later than at the first occasion."""
    said = {one["says"] for one in row["scenario"].get("interjections", [])}
    for at in said_by(row, "user"):
        later = [number for number in said_by(row, "assistant") if number > at]
        if row["messages"][at]["content"] in said and len(later) > 2 and row["messages"][later[0]].get("tool_calls"):
            row["messages"].insert(later[1] - 1, row["messages"].pop(at))
            return row
    return None


@kind
def edited_opening(row: Plain, rng: Random) -> Plain | None:
    row["messages"][1]["content"] += " Thanks!"
    return row


@kind
def edited_system_prompt(row: Plain, rng: Random) -> Plain | None:
    row["messages"][0]["content"] = row["messages"][0]["content"].replace("not", "", 1) + " "
    return row


@kind
def changed_role(row: Plain, rng: Random) -> Plain | None:
    at = pick(rng, said_by(row, "user"))
    row["messages"][at]["role"] = "assistant"
    return row


# --- the answer ---------------------------------------------------------------------------------------------


@kind
def claimed_success(row: Plain, rng: Random) -> Plain | None:
    if "honest_end" not in row["scenario"]:
        return None
    row["messages"][-1]["content"] = row["scenario"]["answer"]
    return row


@kind
def edited_fact(row: Plain, rng: Random) -> Plain | None:
    """One that the answer must tell, wherever it stands in it."""
    facts = (row["scenario"].get("honest_end") or row["scenario"]).get("facts", [])
    answer = row["messages"][-1]["content"]
    told = [s for fact in facts for s in fact.get("spellings", []) if len(fact["spellings"]) == 1 and s in answer and re.search(r"\d", s)]
    fact = pick(rng, told)
    if fact is None:
        return None
    row["messages"][-1]["content"] = answer.replace(fact, turned(fact, rng))
    return row


@kind
def answer_without_content(row: Plain, rng: Random) -> Plain | None:
    if not (row["scenario"].get("honest_end") or row["scenario"]).get("facts"):
        return None
    row["messages"][-1]["content"] = "Done."
    return row


# --- what the checks found ----------------------------------------------------------------------------------


@kind
def edited_end_state(row: Plain, rng: Random) -> Plain | None:
    row["state_digest"] = fingerprint(row["state_digest"])
    return row


@kind
def edited_outcome(row: Plain, rng: Random) -> Plain | None:
    name = rng.choice(["state", "untouched", "allowed", "grounded", "confirmed", "told"])
    row["outcome"][name] = not row["outcome"][name]
    return row


@kind
def flipped_verdict(row: Plain, rng: Random) -> Plain | None:
    verdict = rng.choice(row["verdicts"])
    verdict["passed"] = not verdict["passed"]
    return row


@kind
def removed_verdict(row: Plain, rng: Random) -> Plain | None:
    row["verdicts"].remove(rng.choice(row["verdicts"]))
    return row


@kind
def wrong_step_into_the_loss(row: Plain, rng: Random) -> Plain | None:
    wrong = row.get("recovery", {}).get("wrong")
    if not wrong:
        return None
    at = rng.choice(wrong)
    wrong.remove(at)
    row["messages"][at]["train"] = True
    return row


@kind
def good_step_out_of_the_loss(row: Plain, rng: Random) -> Plain | None:
    at = pick(rng, [at for at in said_by(row, "assistant") if row["messages"][at]["train"]])
    row["messages"][at]["train"] = False
    if "recovery" in row:
        row["recovery"]["wrong"] = sorted([*row["recovery"]["wrong"], at])
    return row


@kind
def moved_recovery(row: Plain, rng: Random) -> Plain | None:
    recovery = row.get("recovery", {}).get("recovery")
    if not recovery:
        return None
    others = [at for at in said_by(row, "assistant") if at not in recovery]
    recovery[rng.randrange(len(recovery))] = rng.choice(others)
    recovery.sort()
    return row


@kind
def shortened_recovery(row: Plain, rng: Random) -> Plain | None:
    recovery = row.get("recovery", {}).get("recovery", [])
    if len(recovery) < 2:
        return None
    del recovery[rng.randrange(len(recovery))]
    return row


@kind
def flipped_proof(row: Plain, rng: Random) -> Plain | None:
    if "recovery" not in row:
        return None
    row["recovery"][rng.choice(["without_fault_holds", "without_recovery_fails"])] = False
    return row


@kind
def other_trouble(row: Plain, rng: Random) -> Plain | None:
    if "recovery" not in row:
        return None
    row["recovery"]["faults"] = ["loop" if row["recovery"]["faults"] != ["loop"] else "stale"]
    return row


@kind
def removed_recovery(row: Plain, rng: Random) -> Plain | None:
    return row if row.pop("recovery", None) else None


# --- what was asked -----------------------------------------------------------------------------------------


@kind
def weakened_goal(row: Plain, rng: Random) -> Plain | None:
    assertions = row["scenario"].get("assertions")
    if not assertions:
        return None
    del assertions[rng.randrange(len(assertions))]
    return row


@kind
def removed_facts(row: Plain, rng: Random) -> Plain | None:
    if not row["scenario"].get("facts"):
        return None
    row["scenario"]["facts"] = []
    return row


@kind
def removed_prohibition(row: Plain, rng: Random) -> Plain | None:
    if not row["scenario"].get("forbidden"):
        return None
    row["scenario"]["forbidden"] = []
    return row


@kind
def permitted_change(row: Plain, rng: Random) -> Plain | None:
    row["scenario"]["touches"].append("orders/W1")
    return row


@kind
def removed_fault(row: Plain, rng: Random) -> Plain | None:
    if not row["scenario"].get("faults"):
        return None
    row["scenario"]["faults"] = []
    return row


@kind
def edited_reference(row: Plain, rng: Random) -> Plain | None:
    if not row["scenario"].get("steps"):
        return None
    rng.choice(row["scenario"]["steps"])["why"] += " now"
    return row


# --- what the record says of itself -------------------------------------------------------------------------


@kind
def wrong_id(row: Plain, rng: Random) -> Plain | None:
    row["id"] = "tm-" + fingerprint(row["id"])[:20]
    return row


@kind
def changed_index(row: Plain, rng: Random) -> Plain | None:
    row["index"] += 1
    row["scenario"]["index"] += 1
    return row


@kind
def changed_seed(row: Plain, rng: Random) -> Plain | None:
    row["seed"] += 1
    return row


@kind
def renamed_environment(row: Plain, rng: Random) -> Plain | None:
    row["environment"] = row["scenario"]["environment"] = "bank" if row["environment"] != "bank" else "store"
    return row


@kind
def renamed_kind(row: Plain, rng: Random) -> Plain | None:
    row["kind"] = "tool_call" if row["kind"] != "tool_call" else "goal_decomposition"
    return row


@kind
def renamed_template(row: Plain, rng: Random) -> Plain | None:
    row["template"] += "_2"
    return row


@kind
def easier(row: Plain, rng: Random) -> Plain | None:
    row["difficulty"] = row["difficulty"] % 5 + 1
    return row


@kind
def removed_tool(row: Plain, rng: Random) -> Plain | None:
    row["tools"].remove(rng.choice(row["tools"]))
    return row


@kind
def edited_tool(row: Plain, rng: Random) -> Plain | None:
    rng.choice(row["tools"])["function"]["description"] += " Use it often."
    return row


@kind
def changed_effect(row: Plain, rng: Random) -> Plain | None:
    name = rng.choice(sorted(row["effects"]))
    row["effects"][name] = "read" if row["effects"][name] != "read" else "irreversible"
    return row


# --- the form of the record ---------------------------------------------------------------------------------


@kind
def unknown_field(row: Plain, rng: Random) -> Plain | None:
    place = rng.choice([row, row["messages"][-1], row["scenario"], row["outcome"], rng.choice(row["tools"])["function"]])
    place["note"] = "reviewed"
    return row


@kind
def removed_field(row: Plain, rng: Random) -> Plain | None:
    place, name = rng.choice([(row, "state_digest"), (row, "effects"), (row["messages"][-1], "content"), (row["scenario"], "opening")])
    del place[name]
    return row


@kind
def wrong_type(row: Plain, rng: Random) -> Plain | None:
    place, name, value = rng.choice(
        [(row["messages"][-1], "content", ["text"]), (row["scenario"], "world", "3"), (row, "verdicts", [1]), (row, "outcome", "good")]
    )
    place[name] = value
    return row


# --- what only the digest, or the other records, can show ---------------------------------------------------


@kind
def reworded_answer(row: Plain, rng: Random) -> Plain | None:
    row["messages"][-1]["content"] += " Have a nice day."
    return row


@kind
def reworded_reasoning(row: Plain, rng: Random) -> Plain | None:
    at = pick(rng, [at for at in said_by(row, "assistant") if row["messages"][at].get("reasoning_content")])
    row["messages"][at]["reasoning_content"] += " That is the way to go."
    return row


@kind
def reworded_reply(row: Plain, rng: Random) -> Plain | None:
    """What the user says to a question, with nothing in it lost."""
    at = pick(rng, spoken(row))
    if at is None:
        return None
    row["messages"][at + 1]["content"] += " And hurry."
    return row


@kind
def edited_free_text(row: Plain, rng: Random) -> Plain | None:
    """The summary for a colleague: wording is the agent's, and no state depends on it."""
    found = [call for _, call, _ in calls(row) if call["function"]["name"] == "transfer_to_human"]
    if not found:
        return None
    rng.choice(found)["function"]["arguments"]["summary"] += " It is urgent."
    return row


@kind
def other_teacher(row: Plain, rng: Random) -> Plain | None:
    row["teacher"] = "someone-else"
    return row


@kind
def fewer_tokens(row: Plain, rng: Random) -> Plain | None:
    row["usage"]["completion_tokens"] += 1
    return row


@kind
def other_revisions(row: Plain, rng: Random) -> Plain | None:
    row["revisions"] = (row["revisions"] + 1) % 3
    return row


ONLY_THE_DIGEST = {
    "dropped_lookup": "another agent might have done without this look-up; most are missed, but not every one",
    "duplicated_lookup": "looking twice does no harm, and an agent may do so",
    "dropped_exchange": "no rule asks for a question before a change that can be undone",
    "reworded_answer": "the wording of what is said besides the facts is the agent's",
    "reworded_reasoning": "the wording of thoughts is the agent's",
    "reworded_reply": "what a user says to a question does not follow from the scenario, whoever plays the user",
    "edited_free_text": "free text in an argument is the agent's, and states are compared without it",
    "other_teacher": "nothing in a conversation says who played the agent",
    "fewer_tokens": "nothing in a conversation says what it cost",
    "other_revisions": "one record alone does not show its drafts; the ledger does, and the whole is checked against it",
}
"""Kinds that no check of meaning need find once the digest is made anew, each with the reason."""
