"""Whether the agent asks the user to agree, or only for a fact, or not at all: the scripted user answers by it, and the constitution
takes an answer for consent by it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tracemill.generators.teachers.slots import asks_for, sentences
from tracemill.trace import Slot

_AGREEMENT = re.compile(
    r"\bshall i\b|\bshould i\b|\bi should\b|\bgo ahead\b|\bproceed\b|\bagree|\bconfirm|\bapprove|\bconsent|\bpermission\b|\bgo-ahead\b|\ball right\b|\balright\b"
    r"|\bwant me to\b|\blike me to\b|\bokay\b|\bok\b|\b(?:sound|look)s? (?:good|right|fine)\b|\bdoes (?:that|this) sound\b"
)
_PROPOSAL = re.compile(r"\bshall i\b|\bshould i\b|\bi should\b|\bwant me to\b|\blike me to\b|\b(?:do you|you) agree\b")
"""Asks to agree even where the same sentence asks for a fact: 'could you confirm the order number?' does not."""
_FACT = re.compile(
    r"^(?:[^,:]*[,:] )?(?:and |so |but |also |then )*(?:what|which|who|whom|whose|when|where|why|how)\b"
    r"|\b(?:could|can|would|will|do|may|might) (?:you|i|we) (?:please |also |kindly )?"
    r"(?:tell|give|have|know|provide|share|send|say|specify|state|name|ask|explain|clarify|describe)\b"
)
_REQUEST = re.compile(
    r"\b(?:please|kindly|(?:need|want|like) you to|can you|could you)\b.*\b(?:confirm|verify|agree|approve|authori[sz]e|consent)\b"
    r"|\b(?:let me know|tell me|say) (?:if|whether|when|how)\b.*\b(?:i should|i may|i can|proceed|go ahead|okay|ok|all right|alright|fine|agree)\b"
    r"|\b(?:need|require|await\w*|waiting for|ask\w* for|like|want|have)\b.*\byour (?:\w+ )?"
    r"(?:confirmation|consent|approval|agreement|permission|go-ahead|word|okay|ok|yes)\b"
    r"|\b(?:if|once|when|as soon as|unless|until|before)\b.*\byou(?:'re| are| have)? (?:\w+ )?(?:agree|confirm|approve|consent|say so|happy)"
    r"|\bif (?:that|this|it)(?:'s| is) (?:okay|ok|all right|alright|fine)\b|\byes/no\b|\b(?:say|type|write|answer|reply|respond)\b.*\byes\b"
)
_TELLING = re.compile(r"\bplease (?:tell|give|provide|share|send|specify|state|enter)\b|\blike to know\b|\bneed (?:to know|your)\b")
_COURTESY = re.compile(
    r"\b(?:any|some)thing (?:else|more|further|i can|we can)\b|\bany(?: \w+)? (?:questions?|help|assistance|wish(?:es)?|requests?|concerns?|way)\b|\b(?:what|how) else\b"
    r"|\b(?:other|further|more) (?:questions?|help|assistance)\b|\bhelp (?:you )?(?:further|with something)\b"
    r"|\b(?:is (?:that|this|it)|will that be) all\b(?! right)|\b(?:is|was) (?:that|this|it|everything) (?:clear|helpful)\b|\b(?:does|did) (?:that|this|it) (?:help|answer|make sense)\b"
)
_BETWEEN = re.compile(r",? or (?=(?:is|are|do|does|did|can|could|shall|should|would|may|will|what|anything|answer)\b)")


def wants_consent(said: str, slots: Sequence[Slot] = ()) -> bool:
    """Whether the message asks the user to agree: by a question that could be answered with yes, or a request for their word. Not a
    mere courtesy ('Can I help with anything else?'), and not a sentence that asks for one of the slots."""
    for part, question in _parts(said):
        if any(asks_for(slot, part, slots) for slot in slots):
            agreed = _PROPOSAL.search(part) is not None
        elif question:
            agreed = _AGREEMENT.search(part) is not None or _FACT.search(part) is None
        else:
            agreed = _REQUEST.search(part) is not None
        if agreed:
            return True
    return False


def wants_answer(said: str) -> bool:
    """Whether the message asks the user for anything at all, courtesies apart."""
    return any(question or _REQUEST.search(part) or _TELLING.search(part) for part, question in _parts(said))


def _parts(said: str) -> Iterator[tuple[str, bool]]:
    """The sentences, and of 'shall I go ahead, or is there anything else?' each half; whether each belongs to a question."""
    for sentence in sentences(said):
        question = sentence.endswith("?")
        for part in _BETWEEN.split(sentence) if question else [sentence]:
            if "before" in part or _COURTESY.search(part) is None:
                yield (part if part.endswith("?") or not question else f"{part}?"), question
