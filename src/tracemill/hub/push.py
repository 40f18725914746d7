"""`tracemill push`: bring to the Hub what is not there yet, once or for as long as a run is made.

The Hub itself is all that is known of what was pushed: every attempt begins by reading what is there, so that one that was
killed, or whose answer was lost, is continued by the next. A commit names the one that it was planned on; the Hub takes
it only if nobody else has committed since.
"""

from __future__ import annotations

import json
import logging
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.text import Text

from tracemill.calling import command
from tracemill.errors import ConfigError, DatasetError, HubError, TracemillError
from tracemill.hub.account import RepoType, open_repo, passing, said
from tracemill.hub.content import Content
from tracemill.hub.folder import is_complete, kind_of, take
from tracemill.hub.remote import Remote, blob_id, sha256
from tracemill.stats import clean, count_of
from tracemill.stopping import Stop, stoppable
from tracemill.trace import Json

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")

MOST_SHARDS = 50  # of one commit
ATTEMPTS = 6  # at a push, each after twice the pause of the one before
PAUSE = 1.0  # seconds
LOOK = 1.0  # seconds between two looks whether the run is complete
BESIDE = frozenset({".gitattributes", ".gitignore", "LICENSE", "README.md"})  # what a repository may hold before the first push
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def push(out: Path, repo: str, *, private: bool = False, every: str | None = None) -> int:
    """Push once, or every so often until the run is complete; the exit code: 0, or 130 if stopped before.

    Raises ConfigError, DatasetError, HubError.
    """
    pause = seconds(every) if every is not None else None
    if pause is None and not out.is_dir():
        raise DatasetError(f"{out}: there is no such folder; with --every it is waited for")
    kind = kind_of(out)
    if pause is None:
        _something(out, repo)  # before a repository is made for nothing
    console = Console(stderr=True, highlight=False)
    _hide_addresses()
    if not console.is_terminal:
        _hide_bars()
    api, url = _insist(lambda: open_repo(repo, kind, private=private), lambda text: _say(console, text))
    _say(console, f"Pushing {out} to {url}")
    pushing = Push(api, out, repo, kind, lambda text: _say(console, text))
    if pause is None:
        pushing.bring()
    else:
        stop = Stop()
        with stoppable(stop):
            _follow(pushing, pause, stop)
    _summary(pushing, url)
    return 0 if pause is None or (pushing.last is not None and pushing.last.complete) else 130


def seconds(text: str) -> float:
    """30s, 10m, 1h or 1h30m. Raises ConfigError."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    total = sum(float(number) * UNITS[unit] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or total <= 0:
        raise ConfigError(f"--every: expected a time such as 30s, 10m or 1h30m; got {text!r}")
    return total


def _something(out: Path, repo: str) -> Content:
    """What the folder holds. Raises DatasetError if that is nothing."""
    content = take(out, repo)
    if content is not None:
        return content
    if is_complete(out):
        raise DatasetError(f"{out} holds nothing to push yet, and says that it is complete: bring its card (README.md) and shards back")
    raise DatasetError(f"{out} holds nothing to push yet: wait for the first shards, or say --every 10m")


def _insist(act: Callable[[], T], say: Callable[[str], None]) -> T:
    """What it gives, if need be after a while: a Hub that is away or busy is asked again."""
    for attempt in range(ATTEMPTS):
        try:
            return act()
        except Exception as reason:
            if not passing(reason) or attempt == ATTEMPTS - 1:
                raise
            say(f"The Hub says {said(reason)}; trying again.")
            time.sleep(PAUSE * 2**attempt * random.uniform(0.5, 1))  # so that two pushes do not meet again and again
    raise AssertionError


def _hide_addresses() -> None:
    """The client's log names what it asks for again: addresses of uploads are signed, and whoever has one may write there."""
    logging.getLogger("huggingface_hub.utils._http").setLevel(logging.ERROR)


def _hide_bars() -> None:
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()


def _follow(pushing: Push, pause: float, stop: Stop) -> None:
    """Push every so often, at once when the run becomes complete or is to be stopped, and then no more."""
    while True:
        complete = is_complete(pushing.out)
        last = complete or stop.is_set()
        try:
            pushing.bring(wait=True)
            if last:
                return
        except HubError as reason:
            if stop.is_set() or not passing(reason.__cause__):
                raise
            pushing.say(f"{reason.message}; trying again in {pause:g} s")
        until = time.monotonic() + pause
        while time.monotonic() < until and not stop.is_set() and (complete or not is_complete(pushing.out)):
            time.sleep(min(LOOK, max(0.0, until - time.monotonic())))


# --- one push -----------------------------------------------------------------------------------------------


class Push:
    """One folder and one repository."""

    def __init__(self, api: HfApi, out: Path, repo: str, kind: RepoType, say: Callable[[str], None]) -> None:
        self.out, self.repo, self.kind, self.say = out, repo, kind, say
        self.commits = 0
        self.last: Content | None = None
        """What was brought last."""
        self._api = api
        self._told: set[str] = set()

    def bring(self, *, wait: bool = False) -> None:
        """All that is new, in as many commits as that takes. Raises DatasetError where there is nothing to push, unless
        something is waited for, or where the repository holds other data; HubError where the Hub fails for long."""
        try:
            _insist(lambda: self._bring(wait), self._notice)
        except TracemillError:
            raise
        except Exception as reason:
            raise HubError(f"the push to {self.repo} failed ({said(reason)})", _mend(reason)) from reason

    def _bring(self, wait: bool) -> None:
        remote = self._remote()  # before the folder, which only grows: so what is there is here too
        content = take(self.out, self.repo) if wait and not is_complete(self.out) else _something(self.out, self.repo)
        if content is None:
            return
        if content.kind != self.kind:
            raise DatasetError(f"{self.out} became a training; {self.repo} was made for a run: push it again, to another --repo")
        for notice in content.notices:
            self._notice(notice)
        self._check(remote, content)
        for names, added in _batches(content, remote):
            if names or content.complete or not wait:  # while a run is made, a card alone goes with the next shards
                self._commit(remote, content, names, added)
        self.last = content

    def _remote(self) -> Remote:
        from huggingface_hub.hf_api import RepoFile

        info = self._api.repo_info(self.repo, repo_type=self.kind)
        if info.sha is None:
            return Remote(None, {})
        tree = self._api.list_repo_tree(self.repo, recursive=True, revision=info.sha, repo_type=self.kind)
        files = {one.path: one.lfs.sha256 if one.lfs else one.blob_id for one in tree if isinstance(one, RepoFile)}
        return Remote(info.sha, files)

    def _check(self, remote: Remote, content: Content) -> None:
        """Raises DatasetError where the repository holds something else: it would be mixed with this."""
        elsewhere = f"push to another --repo, or empty this one first: hf repos delete-files {self.repo} '*' --repo-type {self.kind}"
        strangers = sorted(set(remote.files) - BESIDE)
        if content.record not in remote.files and strangers:
            raise DatasetError(f"{self.repo} holds files of another kind: {elsewhere}", [f"found {name}" for name in strangers[:5]])
        if content.record in remote.files and (differences := content.differences(self._record(remote, content.record))):
            what = "another run" if self.kind == "dataset" else "another training"
            raise DatasetError(f"{self.repo} holds {what}: {elsewhere}", differences[:10])
        if self.kind == "dataset":
            shards = [name for name in remote.files if name.endswith(".parquet")]
            gone = [f"{name} is not in {self.out}" for name in shards if not (self.out / name).is_file()]
            other = [
                f"{name} has other rows in {self.out}"
                for name in shards
                if name in content.shards and not remote.has(name, content.shards[name])
            ]
            if gone or other:
                raise DatasetError(f"{self.repo} holds this run, made another time: {elsewhere}", (gone + other)[:5])

    def _record(self, remote: Remote, name: str) -> Mapping[str, Json]:
        path = self._api.hf_hub_download(self.repo, name, repo_type=self.kind, revision=remote.head)
        try:
            loaded = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError:
            loaded = None
        return loaded if isinstance(loaded, dict) else {}

    def _commit(self, remote: Remote, content: Content, names: list[str], added: Mapping[str, Path | bytes]) -> None:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        present = [name for name in content.shards if name in remote.files or name in names]
        small = [name for name in added if name not in names]
        gone = content.gone(remote.files)
        message = _message(content.message(names, present, small) if added else "", len(gone))
        adding = [CommitOperationAdd(name, what) for name, what in added.items()]
        removing = [CommitOperationDelete(name, is_folder=False) for name in gone]
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", "Warnings while validating metadata")  # what the Hub thinks of the card
            done = self._api.create_commit(
                self.repo, [*adding, *removing], commit_message=message, repo_type=self.kind, parent_commit=remote.head
            )
        for warning in found:
            self._notice(str(warning.message))
        remote.head = done.oid
        remote.files |= {name: sha256(what) if name in names else blob_id(what) for name, what in added.items()}
        for name in gone:
            del remote.files[name]
        if gone or any(one._is_committed for one in adding):  # else another push has just brought the same, and there was no commit
            self.commits += 1
            self.say(f"{time.strftime('%H:%M:%S')}  {message}")

    def _notice(self, text: str) -> None:
        """Once."""
        if text not in self._told:
            self._told.add(text)
            self.say(text)


def _batches(content: Content, remote: Remote) -> Iterator[tuple[list[str], dict[str, Path | bytes]]]:
    """The commits to make: the new shards of each, and all files that it brings. The repository is whole after each of them."""
    new = [name for name, path in content.shards.items() if not remote.has(name, path)]
    there = [name for name in content.shards if name not in set(new)]
    most = MOST_SHARDS if content.divisible else max(1, len(new))
    for start in range(0, max(1, len(new)), most):
        names = new[start : start + most]
        there += names
        small = {name: text for name, text in content.texts(there).items() if not remote.has(name, text)}
        if names or small or content.gone(remote.files):
            yield names, {**{name: content.shards[name] for name in names}, **small}


# --- what is told -------------------------------------------------------------------------------------------


def _message(adding: str, gone: int) -> str:
    """Of a commit, from that on what it adds, and the number of files that it removes."""
    if not gone:
        return adding
    return f"{adding}; remove {count_of(gone, 'file')}" if adding else f"Remove {count_of(gone, 'file')}"


def _mend(reason: Exception) -> list[str]:
    again = "what has arrived stays: run the same command again to go on"
    return [again] if passing(reason) else ["if these words do not say what is wrong, see whether the token still holds", again]


def _say(console: Console, text: str) -> None:
    console.print(Text(clean(text)), soft_wrap=True)


def _summary(pushing: Push, url: str) -> None:
    console = Console(highlight=False)
    content, repo = pushing.last, pushing.repo
    if content is None:
        console.print(Text(f"Stopped before there was anything to push: nothing was pushed to {url}."), soft_wrap=True)
        return
    made = count_of(pushing.commits, "commit") if pushing.commits else "nothing was new"
    state = "" if content.complete else ", the run not being complete yet: run the same command again to go on"
    console.print(Text(f"{url} holds {content.about()} ({made}){state}."), soft_wrap=True)
    if not content.usable:
        return
    for line in ["", "Use it:", *(f"  {line}" for line in (_dataset_use if content.kind == "dataset" else _model_use)(repo))]:
        console.print(Text(line), soft_wrap=True)


def _dataset_use(repo: str) -> list[str]:
    return [
        "from datasets import load_dataset",
        f'traces = load_dataset("{repo}", split="train")',
        f'traces = load_dataset("{repo}", split="train", streaming=True)  # without downloading it first',
    ]


def _model_use(repo: str) -> list[str]:
    folder = f"runs/{repo.partition('/')[2]}"
    return [
        f"hf download {repo} --local-dir {folder}",  # an adapter is a policy only as a folder
        command("evaluate", "--policy", folder, "--out", f"{folder}-evaluated"),
        f"the card has the rest: how to load {repo} in Python or vLLM",
    ]
