"""Secrets and personal data: found where the agent wrote them out of nothing, and nowhere else; never told in full."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tracemill.hygiene.findings import in_messages, mask
from tracemill.hygiene.patterns import PERSONAL, SECRETS, occurrences

LETTERS = "aB3dE5gH7jK9mN2pQ4sT6vW8yZ1cF0iLkRuXoJ"
HEX = "8f14e45fceea167a5a36dedd4bea2543"
KEYS = {
    "openai_key": f"sk-proj-{LETTERS}",
    "anthropic_key": f"sk-ant-api03-{LETTERS}",
    "aws_key": "AKIA" + "Q3EGRPL2KX7TYUB5",
    "aws_secret": f"aws_secret_access_key = {LETTERS}/+",
    "azure_key": f"AccountKey={LETTERS}{LETTERS}+/{LETTERS[:8]}==",
    "github_token": f"ghp_{LETTERS}",
    "gitlab_token": f"glpat-{LETTERS[:20]}",
    "huggingface_token": f"hf_{LETTERS[:34]}",
    "slack_token": f"xoxb-{LETTERS}",
    "google_key": f"AIza{LETTERS[:35]}",
    "stripe_key": f"sk_live_{LETTERS[:24]}",
    "sendgrid_key": f"SG.{LETTERS[:22]}.{LETTERS}-_x9Q",
    "twilio_key": f"SK{HEX}",
    "digitalocean_token": f"dop_v1_{HEX}{HEX}",
    "shopify_token": f"shpat_{HEX}",
    "docker_token": f"dckr_pat_{LETTERS[:27]}",
    "vault_token": f"hvs.{LETTERS}",
    "telegram_token": f"6093174825:AA{LETTERS[:33]}",
    "discord_webhook": f"discord.com/api/webhooks/309174826503917482/{LETTERS}{LETTERS[:30]}",
    "notion_token": f"ntn_{LETTERS}{LETTERS[:8]}",
    "databricks_token": f"dapi{HEX}",
    "inference_key": f"gsk_{LETTERS}{LETTERS[:14]}",
    "npm_token": f"npm_{LETTERS[:36]}",
    "pypi_token": f"pypi-AgEIcHlwaS5vcmc{LETTERS}{LETTERS}",
    "jwt": f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0{LETTERS}.{LETTERS}",
    "private_key": "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----",
    "password_in_url": "postgres://admin:hunter22@db.internal",
}
PEOPLE = {
    "email": "Maria.Lopez+home@gmail.com",
    "telephone": "+43 664 8213907",
    "card": "4539 1488 0343 6467",
    "iban": "AT61 1904 3002 3457 3201",
    "ssn": "536-22-8114",
    "ip_address": "93.184.216.34",
}
HARMLESS = [
    "sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "AKIAIOSFODNN7EXAMPLE", "task-force-of-the-many-people-here", "hf_your_token_goes_right_in_this_place",
    "selma@example.com", "a@b.example", "order@sign", "+1 212 555 0142", "555-0142", "4539 1488 0343 6468", "4242 4242 4242 4242",
    "AT61 1904 3002 3457 3202", "000-12-3456", "912-12-3456", "2026-05-21", "192.168.1.20", "203.0.113.7", "8.8.8.8", "version 1.2.3",
    "12:30:45", "WF165-0617", "TX-605888", "+43", "c_1055", "SE-41063", "postgres://user:$PASSWORD@host", "2001:db8::1",
    "sk-fading-circle-wrapper-animation", "sk-2024-annual-report-final-version-3", "postgres://user:password@localhost/db",
    "git@github.com:org/repo.git", "noreply@acme.io", "icon@2x.png", "+1-555-867-5309", "(555) 555-1234", "+44 20 7946 0958", "+44 7700 900123",
    "123-45-6789", "4000002500003155", "version 2.4.1.3", "2606:4700:4700::1111", "+1 (234) 567-8900", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
]  # fmt: skip


def kinds(text: str) -> list[str]:
    return [kind for kind, _ in (*occurrences(text, SECRETS), *occurrences(text, PERSONAL))]


@pytest.mark.parametrize(("kind", "text"), (KEYS | PEOPLE).items())
def test_each_form_is_found_within_a_sentence(kind: str, text: str) -> None:
    assert kinds(f"It is {text}, as you asked.") == [kind]


@pytest.mark.parametrize(
    "text",
    [
        "+1 (415) 726-2671",
        "(415) 726-2671",
        "415-726-2671",
        "1-415-726-2671",
        "4539148803436467",
        "GB94BARC10201530093459",
        "2a00:1450:4001:82a::200e",
        "öztürk@firma.de",
        "info@müller.de",
        "AT61 1904 3002 3457 3201 BIC BKAUATWW",
        "de75512108001245126199",
        "AT61\u00a01904\u00a03002\u00a03457\u00a03201",
        "ES9121000418450200051332 AND",
        "6441111111111117",
        "redis://:hunter22@cache.internal",
        f'"SecretAccessKey": "{LETTERS}/+"',
        f"AWS_SECRET_ACCESS_KEY={LETTERS}/+",
        f"GOCSPX-{LETTERS[:28]}",
        f"ya29.{LETTERS}",
        f"glrt-{LETTERS[:20]}",
        f"xapp-1-A0B1C2D3E4F-{HEX}",
        f"whsec_{LETTERS[:32]}",
        f"sk-or-v1-{HEX}{HEX}",
        f"xai-{LETTERS}{LETTERS}",
        f"sk-{HEX}",
    ],
)
def test_other_spellings_are_found(text: str) -> None:
    assert len(kinds(f"It is {text}.")) == 1


def test_no_text_takes_long_to_look_through() -> None:
    """Each dot of a long chain once was the beginning of a scheme to be tried to its end: two minutes for these."""
    chain = "a." * 40_000
    assert kinds(f"https://x.io {chain} x@{chain}") == []


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_like_one_is_passed_over(text: str) -> None:
    assert kinds(f"See {text}.") == []


def talk(*said: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content, **({"tool_call_id": "a", "name": "t"} if role == "tool" else {})} for role, content in said]


def test_what_was_given_is_no_finding_and_what_is_made_up_is() -> None:
    asked, told = ("user", "Where is it?"), ("assistant", f"Write to {PEOPLE['email']} or call {PEOPLE['telephone']}.")
    assert {one.kind for one in in_messages(talk(asked, told))} == {"email", "telephone"}
    returned = ("tool", json.dumps({"mail": PEOPLE["email"].lower(), "phone": "+43664 8213907"}))
    assert in_messages(talk(asked, returned, told)) == [], "in another spelling too"
    assert len(in_messages(talk(asked, told, returned))) == 2, "what a tool echoes afterwards was not given"
    assert in_messages(talk(asked, told), [json.dumps(PEOPLE)]) == [], "the scenario holds it"


def test_words_thoughts_and_arguments_are_looked_through_and_each_thing_is_found_once() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "t", "arguments": {"to": [PEOPLE["email"]], "ssn": PEOPLE["ssn"]}}}
    said = {"role": "assistant", "content": PEOPLE["email"], "reasoning_content": f"IBAN {PEOPLE['iban']}", "tool_calls": [call]}
    found = in_messages([{"role": "user", "content": "Go."}, said])
    assert [(one.kind, one.where) for one in found] == [
        ("email", "messages[1].content"),
        ("iban", "messages[1].reasoning_content"),
        ("ssn", "messages[1].tool_calls[0].ssn"),
    ]


def test_a_secret_is_found_wherever_it_stands_and_personal_data_only_in_what_was_said() -> None:
    for role in ("system", "user", "assistant", "tool"):
        assert [one.kind for one in in_messages(talk((role, KEYS["github_token"])))] == ["github_token"]
    assert in_messages(talk(("tool", PEOPLE["email"]), ("system", PEOPLE["iban"]))) == []


@pytest.mark.parametrize(("kind", "text"), (KEYS | PEOPLE).items())
def test_no_secret_is_told_in_full(kind: str, text: str) -> None:
    (one,) = in_messages(talk(("assistant", f"It is {text}.")))
    assert one.kind == kind and one.text == text
    assert text not in one.masked and text[4:] not in one.masked
    masked = mask({"a": [f"{text} and {text}"], text: 1}, [one])
    assert text not in json.dumps(masked, ensure_ascii=False) and list(masked) == ["a", one.masked]


def test_one_that_is_part_of_another_does_not_spoil_the_mask() -> None:
    whole = KEYS["private_key"].replace("MIIEow", KEYS["github_token"])
    found = in_messages(talk(("assistant", whole), ("assistant", KEYS["github_token"])))
    assert LETTERS[4:] not in mask(f"{whole} {KEYS['github_token']}", found)
