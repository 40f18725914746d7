"""Whose token it is, and whether it may write to the repository: asked before anything long begins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from tracemill import __version__
from tracemill.errors import ConfigError, HubError, TracemillError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

RepoType = Literal["dataset", "model"]
AGAIN = (408, 409, 412, 425, 429)  # and all from 500 on: busy, or somebody else has just committed


def open_repo(repo: str, kind: RepoType, *, private: bool) -> tuple[HfApi, str]:
    """The Hub, and the address of the repository there, which is made if there is none.

    Raises ConfigError where the token, the name or the rights do not do, HubError where the Hub does not answer.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="tracemill", library_version=__version__)
    _check_name(repo)
    with hub_errors(f"cannot ask the Hub at {api.endpoint} who you are"):
        who = _who(api)
    _check_rights(who, repo)
    with hub_errors(f"cannot open {repo}"):
        url = _open(api, who["name"], repo, kind, private=private)
    return api, url


def passing(reason: BaseException | None) -> bool:
    """Whether the same request may succeed later: the Hub is away or busy, or another push came first."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(reason, HfHubHTTPError):
        return reason.response.status_code in AGAIN or reason.response.status_code >= 500
    if isinstance(reason, OfflineModeIsEnabled):
        return False
    if isinstance(reason, ConnectionError | TimeoutError) or type(reason).__module__.startswith("httpx"):
        return True
    return reason is not None and passing(reason.__cause__)  # a failed upload is wrapped


def said(reason: BaseException) -> str:
    """The Hub's own words in one line, or the error's. Addresses are left out: those of uploads are signed."""
    from huggingface_hub import get_token

    words = _words(reason)
    token = get_token()
    return words.replace(token, "[token]") if token else words  # a proxy may send back what it was sent


def _words(reason: BaseException) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(reason, HfHubHTTPError):
        words = reason.server_message or reason.response.reason_phrase
        return f"{reason.response.status_code}, {' '.join(words.split())}"
    if reason.__cause__ is not None:
        return _words(reason.__cause__)
    return " ".join(str(reason).split()) or type(reason).__name__


@contextmanager
def hub_errors(failing: str) -> Iterator[None]:
    """What the client library raises becomes a HubError."""
    try:
        yield
    except TracemillError:
        raise
    except Exception as reason:
        raise HubError(f"{failing}: {said(reason)}") from reason


def _check_name(repo: str) -> None:
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo, re.ASCII):
        near = f"; a user or an organization comes first: org/{repo}" if "/" not in repo else ""
        raise ConfigError(f"--repo: expected org/name, of letters, digits, '-', '_' and '.'; got {repo!r}{near}")


def _who(api: HfApi) -> dict[str, Any]:
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError

    mend = f"make one that may write at {api.endpoint}/settings/tokens"
    token = get_token()
    if not token:
        raise ConfigError("there is no token for the Hub: set HF_TOKEN, or log in once by `hf auth login`", [mend])
    if not token.isascii() or not token.isprintable() or " " in token:  # it could not be sent, and the error would print it
        raise ConfigError("the token for the Hub (HF_TOKEN goes before a login) holds characters that no token has", [mend])
    try:
        who: dict[str, Any] = api.whoami()
    except HfHubHTTPError as reason:
        if reason.response.status_code not in (401, 403):
            raise
        raise ConfigError("the Hub does not know the token (HF_TOKEN goes before a login)", [said(reason), mend]) from reason
    if who.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise ConfigError(f"the token of {who['name']} may read, not write", [mend])
    return who


def _check_rights(who: dict[str, Any], repo: str) -> None:
    """The names under which the token's owner can have repositories; of a single repository only the Hub itself can tell."""
    owner = repo.partition("/")[0]
    names = [who["name"], *(one["name"] for one in who.get("orgs", []))]
    if owner.lower() not in [name.lower() for name in names]:
        raise ConfigError(
            f"--repo {repo}: the token is that of {who['name']}, who has no repositories in {owner}", [f"in {', '.join(names)}"]
        )


def _open(api: HfApi, who: str, repo: str, kind: RepoType, *, private: bool) -> str:
    from huggingface_hub.errors import HfHubHTTPError

    try:
        url = str(api.create_repo(repo, repo_type=kind, private=private or None, exist_ok=True))
        api.auth_check(repo, repo_type=kind, write=True)
    except HfHubHTTPError as reason:
        if reason.response.status_code not in (401, 402, 403, 404):
            raise
        problems = [said(reason), "a fine-grained token needs the right to write to this repository or its owner's"]
        raise ConfigError(f"the token of {who} may not write to the {kind} {repo}", problems) from reason
    if private and not api.repo_info(repo, repo_type=kind).private:
        raise ConfigError(f"{url} is there and public: make it private in its settings, choose another --repo, or leave out --private")
    return url
