"""The forms of secrets and of personal data that can be told from a text alone, with as few false alarms as can be.

Secrets have prefixes that their issuers chose so that they can be found. Personal data is checked by what its own standard
offers: the Luhn digit of a card (ISO/IEC 7812-1), the remainder of an IBAN (ISO 13616: 1 modulo 97), numbers that are
never given out (SSN), addresses and domains that are reserved for documents (RFC 2606, 5737, 6890) or for fiction (the
555-01 telephone numbers of the North American plan). Names, postal addresses and dates of birth have no such form and are
not looked for.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

LEAST_VARIED = 8  # different characters that a real key has at least: 'sk-xxxxxxxxxxxxxxxxxxxxxxxx' is none
RESERVED_DOMAINS = re.compile(r"(^|\.)(example\.(com|net|org|edu)|example|test|invalid|localhost|local|internal)$", re.IGNORECASE)
TEST_CARDS = frozenset({
    "4111111111111111", "4242424242424242", "4012888888881881", "5555555555554444", "5105105105105100", "378282246310005",
    "371449635398431", "6011111111111117", "6011000990139424", "30569309025904", "38520000023237", "3530111333300000", "4000056655665556",
})  # fmt: skip
"""Numbers that payment services publish for trying things out."""
EXAMPLE_IBANS = frozenset({"GB82WEST12345698765432", "DE89370400440532013000", "GB29NWBK60161331926819", "FR1420041010050500013M02606"})
PUBLIC_RESOLVERS = frozenset({"8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9"})
NEVER_SSNS = frozenset({"078-05-1120", "219-09-9999"})  # printed in advertisements
_PLACEHOLDER = re.compile(r"example|placeholder|your|dummy|redacted|x{5}|0123456|1234567|abcdef", re.IGNORECASE)


def _anything(found: str) -> bool:
    return True


def _is_key(found: str) -> bool:
    return len(set(found)) > LEAST_VARIED and not _PLACEHOLDER.search(found)


def _is_address(found: str) -> bool:
    return not RESERVED_DOMAINS.search(found.rpartition("@")[2])


def _is_telephone(found: str) -> bool:
    """8 to 15 digits with the country's (ITU-T E.164), or a number of the North American plan, but for its fictional ones."""
    digits = re.sub(r"\D", "", found)
    national = digits[-10:]
    american = not found.startswith("+") or digits.startswith("1")
    if american and (len(digits) not in (10, 11) or national[0] in "01" or national[3] in "01" or national[3:8] == "55501"):
        return False
    return 8 <= len(digits) <= 15 and len(set(digits)) > 3


def _is_card(found: str) -> bool:
    digits = re.sub(r"\D", "", found)
    doubled = [int(digit) * (1 + at % 2) for at, digit in enumerate(reversed(digits))]
    return sum(number - 9 * (number > 9) for number in doubled) % 10 == 0 and digits not in TEST_CARDS and len(set(digits)) > 3


def _is_iban(found: str) -> bool:
    plain = found.replace(" ", "").upper()
    if not 15 <= len(plain) <= 34 or plain in EXAMPLE_IBANS:
        return False
    return int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1


def _is_ssn(found: str) -> bool:
    area, group, serial = found.split("-")
    return found not in NEVER_SSNS and area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _is_public(found: str) -> bool:
    try:
        return ipaddress.ip_address(found).is_global and found not in PUBLIC_RESOLVERS
    except ValueError:
        return False


@dataclass(frozen=True)
class Pattern:
    kind: str
    form: re.Pattern[str]
    real: Callable[[str], bool] = _anything
    signs: tuple[str, ...] = ()
    """One of which stands in whatever has this form: asked first, since it takes no time."""


def _secret(kind: str, form: str, *signs: str) -> Pattern:
    return Pattern(kind, re.compile(rf"(?<![A-Za-z0-9_]){form}"), _is_key, signs)


SECRETS = (
    _secret("openai_key", r"sk-(?!ant-)[A-Za-z0-9_-]{20,}", "sk-"),  # platform.openai.com/docs/api-reference/authentication
    _secret("anthropic_key", r"sk-ant-[A-Za-z0-9_-]{20,}", "sk-ant-"),
    # docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html: long-term and temporary access keys
    _secret("aws_key", r"A(?:KIA|SIA)[A-Z2-7]{16}(?![A-Za-z0-9])", "AKIA", "ASIA"),
    # github.blog/engineering/platform-security/behind-githubs-new-authentication-token-formats
    _secret(
        "github_token",
        r"(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,})",
        "ghp_",
        "gho_",
        "ghu_",
        "ghs_",
        "ghr_",
        "github_pat_",
    ),
    _secret("gitlab_token", r"glpat-[A-Za-z0-9_-]{20,}", "glpat-"),  # docs.gitlab.com/security/tokens
    _secret("huggingface_token", r"hf_[A-Za-z0-9]{30,}", "hf_"),  # huggingface.co/docs/hub/security-tokens
    # docs.slack.dev/authentication/tokens, and its incoming webhooks
    _secret(
        "slack_token",
        r"(?:xox[abeoprs]-[A-Za-z0-9-]{20,}|hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{16,})",
        "xox",
        "hooks.slack.com",
    ),
    _secret("google_key", r"AIza[A-Za-z0-9_-]{35}", "AIza"),  # docs.cloud.google.com/docs/authentication/api-keys
    _secret("stripe_key", r"[rs]k_live_[A-Za-z0-9]{20,}", "k_live_"),  # docs.stripe.com/keys
    _secret("npm_token", r"npm_[A-Za-z0-9]{36}", "npm_"),
    _secret("pypi_token", r"pypi-AgE[A-Za-z0-9_-]{50,}", "pypi-"),
    _secret("jwt", r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{20,}", "eyJ"),  # RFC 7519, header and claims in base64url
    Pattern(  # RFC 7468, section 10 and 11; PGP's is RFC 9580
        "private_key",
        re.compile(r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?s:.*?)(?:-----END [A-Z0-9 ]*-----|\Z)"),
        signs=("PRIVATE KEY",),
    ),
    Pattern(
        "password_in_url",
        re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s/:@'\"<>]+:[^\s/@'\"<>{}$]{4,}@[\w-]+(?:\.[\w-]+)*"),
        lambda found: not _PLACEHOLDER.search(found),
        ("://",),
    ),
)
PERSONAL = (
    Pattern("email", re.compile(r"(?<![\w.+-])[A-Za-z0-9][\w.+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,}(?![\w-])"), _is_address, ("@",)),
    Pattern(
        "telephone",
        re.compile(r"(?<![\w+.-])(?:\+\d{1,3}(?:[ .()-]{0,2}\d){7,12}|(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4})(?![\w-])"),
        _is_telephone,
    ),
    Pattern(
        "card",
        re.compile(
            r"(?<![\w.-])(?:(?:4\d{3}|5[1-5]\d{2}|2[2-7]\d{2}|3[47]\d{2}|6(?:011|5\d{2}))(?:[ -]?\d{4}){1,2}[ -]?\d{3,6}|3[47]\d{2}[ -]\d{6}[ -]\d{5})(?![\w-])"
        ),
        _is_card,
    ),
    Pattern("iban", re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)"), _is_iban),
    # SSA, "Social Security number randomization": no area 000, 666 or 9xx, no group 00, no serial number 0000
    Pattern("ssn", re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"), _is_ssn),
    Pattern(
        "ip_address",
        re.compile(r"(?<![\w.:])(?:(?:\d{1,3}\.){3}\d{1,3}|(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{1,4})(?![\w:]|\.\d)"),
        _is_public,
    ),
)


def occurrences(text: str, patterns: tuple[Pattern, ...]) -> Iterator[tuple[str, str]]:
    """Kind and text of all that has one of these forms."""
    for pattern in patterns:
        if pattern.signs and not any(sign in text for sign in pattern.signs):
            continue
        for match in pattern.form.finditer(text):
            if pattern.real(match[0]):
                yield pattern.kind, match[0]
