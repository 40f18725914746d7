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
STRIPE_TEST = "400000"  # how the cards begin that docs.stripe.com/testing lists by country and by error
EXAMPLE_IBANS = frozenset({"GB82WEST12345698765432", "DE89370400440532013000", "GB29NWBK60161331926819", "FR1420041010050500013M02606"})
IBAN_COUNTRIES = {
    15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HN HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC",
    33: "RU",
}  # fmt: skip
"""By the number of characters, from the registry of ISO 13616 (swift.com/standards/data-standards/iban): so that what follows is not taken along."""
PUBLIC_RESOLVERS = frozenset({
    "8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "2001:4860:4860::8888", "2001:4860:4860::8844", "2606:4700:4700::1111",
    "2606:4700:4700::1001",
})  # fmt: skip
NEVER_SSNS = frozenset({"078-05-1120", "219-09-9999", "123-45-6789"})  # printed in advertisements and forms
DRAMA = ("447700900", "442079460", "441632960")  # Ofcom, "Telephone numbers for use in TV and radio drama programmes"
NOBODY = frozenset({"git", "noreply", "no-reply", "donotreply", "do-not-reply"})
"""Before the @ of what is no person's address: git@github.com:org/repo.git."""
NO_PASSWORDS = frozenset({"pass", "password", "passwd", "pwd", "secret", "guest", "root", "admin", "user", "test", "postgres", "changeme"})
_PLACEHOLDER = re.compile(r"example|placeholder|your|dummy|redacted|x{5}|0123456|1234567|abcdef|eyJzdWIiOiIxMjM0NTY3ODkw", re.IGNORECASE)
"""The last one is the token that jwt.io shows, and with it half of the web."""


def _anything(found: str) -> bool:
    return True


def _is_key(found: str) -> bool:
    return len(set(found)) > LEAST_VARIED and not _PLACEHOLDER.search(found)


def _is_openai(found: str) -> bool:
    """Of words and hyphens such as sk-fading-circle-wrapper or sk-2024-annual-report it is told by a long stretch without any."""
    return _is_key(found) and any(sign.isdigit() for sign in found) and max(map(len, re.split(r"[-_]", found))) >= 16


def _is_login(found: str) -> bool:
    password = found.partition("://")[2].partition("@")[0].partition(":")[2]
    return password.casefold() not in NO_PASSWORDS and not _PLACEHOLDER.search(found)


def _is_address(found: str) -> bool:
    """Not the name of an image for screens of twice the resolution: icon@2x.png."""
    name, _, domain = found.rpartition("@")
    return name.casefold() not in NOBODY and not RESERVED_DOMAINS.search(domain) and not re.match(r"\dx\.", domain)


def _is_telephone(found: str) -> bool:
    """8 to 15 digits with the country's (ITU-T E.164), or a number of the North American plan, but for its fictional ones."""
    digits = re.sub(r"\D", "", found)
    national = digits[-10:]
    american = not found.startswith("+") or digits.startswith("1")
    if american and (len(digits) not in (10, 11) or national[0] in "01" or national[3] in "01" or national[3:8] == "55501"):
        return False
    if digits.startswith(DRAMA) or (american and national.startswith("555")) or "1234567" in digits:
        return False
    return 8 <= len(digits) <= 15 and len(set(digits)) > 3


def _is_card(found: str) -> bool:
    digits = re.sub(r"\D", "", found)
    doubled = [int(digit) * (1 + at % 2) for at, digit in enumerate(reversed(digits))]
    real = digits not in TEST_CARDS and not digits.startswith(STRIPE_TEST) and len(set(digits)) > 3
    return real and sum(number - 9 * (number > 9) for number in doubled) % 10 == 0


def _is_iban(found: str) -> bool:
    plain = re.sub(r"\s", "", found).upper()
    return plain not in EXAMPLE_IBANS and int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1


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


def _secret(kind: str, form: str, *signs: str, real: Callable[[str], bool] = _is_key) -> Pattern:
    return Pattern(kind, re.compile(rf"(?<![A-Za-z0-9_])(?:{form})"), real, signs)


def _iban(length: int, countries: str) -> str:
    """In groups of four, with or without a space between."""
    groups, rest = divmod(length - 4, 4)
    last = rf"[ \xa0]?[A-Z0-9]{{{rest}}}" if rest else ""
    return rf"(?:{countries.replace(' ', '|')})\d{{2}}(?:[ \xa0]?[A-Z0-9]{{4}}){{{groups}}}{last}"


SECRETS = (
    # platform.openai.com/docs/api-reference/authentication; the keys of OpenRouter and DeepSeek begin the same
    _secret("openai_key", r"sk-(?!ant-)[A-Za-z0-9_-]{20,}", "sk-", real=_is_openai),
    _secret("anthropic_key", r"sk-ant-[A-Za-z0-9_-]{20,}", "sk-ant-"),
    # docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html: long-term and temporary access keys
    _secret("aws_key", r"A(?:KIA|SIA)[A-Z2-7]{16}(?![A-Za-z0-9])", "AKIA", "ASIA"),
    # docs.aws.amazon.com/cli/latest/userguide/cli-configure-files.html: it has no form of its own, but a name before it
    _secret(
        "aws_secret",
        r"(?i:(?:aws_?)?secret_?access_?key)[\\\"' ]*[:=][\\\"' ]*[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])",
        "ecret",
        "ECRET",
    ),
    # learn.microsoft.com/azure/storage/common/storage-configure-connection-string
    _secret("azure_key", r"AccountKey=[A-Za-z0-9/+]{86}==", "AccountKey="),
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
    _secret("gitlab_token", r"gl(?:pat|dt|rt|ptt|soat)-[A-Za-z0-9_-]{20,}", "gl"),  # docs.gitlab.com/security/tokens
    _secret("huggingface_token", r"hf_[A-Za-z0-9]{30,}", "hf_"),  # huggingface.co/docs/hub/security-tokens
    # docs.slack.dev/authentication/tokens, and its incoming webhooks
    _secret(
        "slack_token",
        r"(?:xox[abeoprs]-[A-Za-z0-9-]{20,}|xapp-\d-[A-Za-z0-9-]{20,}|hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{16,})",
        "xox",
        "xapp-",
        "hooks.slack.com",
    ),
    # docs.cloud.google.com/docs/authentication/api-keys; secrets of OAuth clients, and what these are given
    _secret("google_key", r"AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{28}|ya29\.[A-Za-z0-9_-]{30,}", "AIza", "GOCSPX-", "ya29."),
    _secret(
        "stripe_key", r"[rs]k_live_[A-Za-z0-9]{20,}|whsec_[A-Za-z0-9+/]{32,}", "k_live_", "whsec_"
    ),  # docs.stripe.com/keys and /webhooks
    _secret(
        "sendgrid_key", r"SG\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}", "SG."
    ),  # twilio.com/docs/sendgrid/ui/account-and-settings/api-keys
    _secret("twilio_key", r"SK[0-9a-f]{32}(?![A-Za-z0-9])", "SK"),  # twilio.com/docs/iam/api-keys
    _secret("digitalocean_token", r"do[opr]_v1_[0-9a-f]{64}", "_v1_"),  # docs.digitalocean.com/reference/api/create-personal-access-token
    _secret("shopify_token", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}", "shp"),  # shopify.dev/docs/apps/build/authentication-authorization
    _secret("docker_token", r"dckr_[po]at_[A-Za-z0-9_-]{27,}", "dckr_"),  # docs.docker.com/security/access-tokens
    _secret("vault_token", r"hv[bs]\.[A-Za-z0-9_-]{24,}", "hvs.", "hvb."),  # developer.hashicorp.com/vault/docs/concepts/tokens
    _secret("telegram_token", r"\d{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])", ":AA"),  # core.telegram.org/bots/api#authorizing-your-bot
    _secret("discord_webhook", r"discord(?:app)?\.com/api/webhooks/\d{17,20}/[A-Za-z0-9_-]{60,}", "/webhooks/"),  # docs.discord.com
    _secret("notion_token", r"ntn_[A-Za-z0-9]{40,}", "ntn_"),  # developers.notion.com/docs/authorization
    _secret("databricks_token", r"dapi[0-9a-f]{32}", "dapi"),  # docs.databricks.com/aws/en/dev-tools/auth/pat
    # console.groq.com, docs.x.ai, docs.perplexity.ai, replicate.com/docs/topics/security/api-tokens
    _secret(
        "inference_key",
        r"gsk_[A-Za-z0-9]{48,}|xai-[A-Za-z0-9]{70,}|pplx-[A-Za-z0-9]{40,}|r8_[A-Za-z0-9]{37}",
        "gsk_",
        "xai-",
        "pplx-",
        "r8_",
    ),
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
        # a name may be missing (redis://:password@host); the bound keeps long chains of dots and hyphens from being tried at each
        re.compile(r"\b[a-z][a-z0-9+.-]{0,30}://[^\s/:@'\"<>]*:[^\s/@'\"<>{}$]{4,}@[\w-]+(?:\.[\w-]+)*"),
        _is_login,
        ("://",),
    ),
)
PERSONAL = (
    Pattern("email", re.compile(r"(?<![\w.+-])\w[\w.+-]*@(?:[\w-]+\.)+[^\W\d_]{2,}(?![\w-])"), _is_address, ("@",)),
    Pattern(
        "telephone",
        re.compile(r"(?<![\w+.-])(?:\+\d{1,3}(?:[ .()-]{0,2}\d){7,12}|(?:1[-. ])?(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4})(?![\w-])"),
        _is_telephone,
    ),
    Pattern(
        "card",
        re.compile(
            r"(?<![\w.-])(?:(?:4\d{3}|5[1-5]\d{2}|2[2-7]\d{2}|3[457]\d{2}|6(?:011|4[4-9]\d|5\d{2}))(?:[ -]?\d{4}){1,2}[ -]?\d{3,6}|3[47]\d{2}[ -]\d{6}[ -]\d{5})(?![\w-])"
        ),
        _is_card,
    ),
    Pattern(
        "iban", re.compile(rf"(?<!\w)(?:{'|'.join(map(_iban, IBAN_COUNTRIES, IBAN_COUNTRIES.values()))})(?!\w)", re.IGNORECASE), _is_iban
    ),
    # SSA, "Social Security number randomization": no area 000, 666 or 9xx, no group 00, no serial number 0000
    Pattern("ssn", re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"), _is_ssn),
    Pattern(
        "ip_address",
        re.compile(r"(?<![\w.:])(?<![Vv]ersion )(?:(?:\d{1,3}\.){3}\d{1,3}|(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{1,4})(?![\w:]|\.\d)"),
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
