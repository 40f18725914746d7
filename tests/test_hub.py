"""Runs, imports and trainings go to the Hub: each shard once, whatever is killed, and nothing that is nobody's business."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from conftest import mill
from datasets import load_dataset
from fake_hub import FakeHub, fail, first, lost, who
from processes import PATIENCE, running, until

from tracemill import writer as writing
from tracemill.annotating.export import export
from tracemill.annotating.pairs import Pairs
from tracemill.annotating.progress import measure
from tracemill.annotating.store import Store, store_path
from tracemill.config import load_config
from tracemill.errors import ConfigError, DatasetError, HubError
from tracemill.generators.scenario import kind_of
from tracemill.hub import push as pushing
from tracemill.hub.account import open_repo
from tracemill.hub.public import public_run, public_text
from tracemill.hub.push import push, seconds
from tracemill.hygiene.clean import Cleaning, clean
from tracemill.importing.openai import import_openai
from tracemill.job import build_job, build_pipeline, run_record
from tracemill.train import card as training_card
from tracemill.writer import Writer, pack, write_whole

REPO = "org/agent-traces"
SETTINGS: dict[str, Any] = {"accept": 24, "environments": ["store", "bank"], "flaws": 0.3, "seed": 3}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    with FakeHub() as fake:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", fake.url)
        monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", fake.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", fake.url)
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("HF_TOKEN", "hf_good")
        monkeypatch.setattr(pushing, "PAUSE", 0.01)
        yield fake
        huggingface_hub.close_session()
        huggingface_hub.HfFileSystem.clear_instance_cache()  # another fake may come to the same port


@pytest.fixture(scope="session")
def many_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose shards hold few rows each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "SHARD_ROWS", 3)
        return mill(tmp_path_factory.mktemp("many") / "run", **SETTINGS)


@pytest.fixture
def run(many_shards: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return shutil.copytree(many_shards, tmp_path / "run")


def shards(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.glob("**/*.parquet")}


def on_the_hub(hub: FakeHub, repo: str = REPO) -> dict[str, bytes]:
    return {name: file.content for name, file in hub.repo(repo).head.files.items() if name.endswith(".parquet")}


def pushed(hub: FakeHub, repo: str = REPO, kind: str = "datasets") -> list[str]:
    """The messages of the commits, without the Hub's own."""
    return [one.message for one in hub.repo(repo, kind).commits[1:]]


def times_added(hub: FakeHub, repo: str = REPO) -> Counter[str]:
    return Counter(name for commit in hub.repo(repo).commits for name in commit.added if name.endswith(".parquet"))


def front(hub: FakeHub, repo: str = REPO, kind: str = "datasets", at: int = -1) -> dict[str, Any]:
    loaded = yaml.safe_load(hub.repo(repo, kind).commits[at].files["README.md"].content.decode().split("---\n")[1])
    assert isinstance(loaded, dict)
    return loaded


def environment(hub: FakeHub, home: Path) -> dict[str, str]:
    ours = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_good", "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **ours, "PYTHONPATH": str(Path(__file__).parent)}


def streamed(wanted: list[tuple[str, str]], repo: str = REPO) -> list[list[str]]:
    """The ids that the real `load_dataset` reads from the fake Hub, for each revision and config."""
    return [[row["id"] for row in load_dataset(repo, name, split="train", streaming=True, revision=revision)] for revision, name in wanted]


def ids(out: Path, place: str = "data/*") -> list[str]:
    return [
        row
        for path in sorted(out.glob(f"{place}/*.parquet"))
        for row in pq.read_table(path, columns=["id"], partitioning=None)["id"].to_pylist()
    ]


def problem(error: pytest.ExceptionInfo[Any]) -> str:
    return str(error.value)


# --- what arrives -------------------------------------------------------------------------------------------


def test_a_run_arrives_whole_in_one_commit_and_a_second_push_makes_none(
    hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert push(run, REPO) == 0
    assert on_the_hub(hub) == shards(run)
    rows = Counter(name.rpartition("/")[0] for name in shards(run) for _ in range(pq.read_metadata(run / name).num_rows))
    assert pushed(hub) == [
        f"Add 8 error_recovery, 8 goal_decomposition and 8 tool_call traces, {rows['preferences']} preference pairs and "
        f"{rows['rejects']} rejections in {len(shards(run))} shards (24 traces in all)"
    ]
    files = hub.repo(REPO).head.files
    assert {"README.md", "run.json", "constitution.yaml", "schemas/trace.schema.json", "schemas/preference.schema.json"} <= set(files)
    assert "schemas/conversation.schema.json" not in files
    assert "PATH_OR_REPO" not in files["README.md"].content.decode()
    told = capsys.readouterr().out
    assert f'load_dataset("{REPO}"' in told and f"{hub.url}/datasets/{REPO}" in told and "24 traces" in told
    uploads = hub.requests["PUT lfs"]
    assert push(run, REPO) == 0
    assert len(pushed(hub)) == 1 and hub.requests["PUT lfs"] == uploads and hub.requests["POST commit"] == 1
    assert "nothing was new" in capsys.readouterr().out


def test_every_commit_of_a_push_can_be_streamed_and_the_last_holds_each_trace_once(
    hub: FakeHub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "MOST_SHARDS", 8)
    push(run, REPO)
    commits = hub.repo(REPO).commits[1:]
    assert len(commits) == -(-len(shards(run)) // 8) and len(commits) > 2
    for commit, rows in zip(commits, streamed([(commit.oid, "default") for commit in commits]), strict=True):
        assert len(rows) == int(commit.message.split("(")[1].split()[0])
    for at in (1, -1):
        assert all(streamed([(hub.repo(REPO).commits[at].oid, config["config_name"]) for config in front(hub, at=at)["configs"]]))
    for name, place in (("default", "data/*"), ("rejects", "rejects"), ("preferences", "preferences")):
        assert sorted(streamed([("main", name)])[0]) == sorted(ids(run, place))


def test_of_a_run_that_grows_only_what_is_new_is_uploaded(hub: FakeHub, tmp_path: Path) -> None:
    out = tmp_path / "run"
    before: dict[str, bytes] = {}
    for _ in growing(out):
        uploads = hub.requests["PUT lfs"]
        push(out, REPO)
        now = shards(out)
        assert on_the_hub(hub) == now
        assert hub.requests["PUT lfs"] - uploads == len(set(now) - set(before))
        before = now
    assert set(times_added(hub).values()) == {1}
    assert all(message.startswith("Add ") for message in pushed(hub)) and len(pushed(hub)) == 4
    run_json = json.loads(hub.repo(REPO).head.files["run.json"].content)
    assert run_json["complete"] and "The dataset is complete." in hub.repo(REPO).head.files["README.md"].content.decode()


def growing(out: Path, steps: int = 4) -> Generator[None, None, None]:
    """A run in this process that writes shards `steps` times."""
    config = load_config(None, SETTINGS)
    job, pipeline = build_job(config), build_pipeline(config)
    writer = Writer(out, quotas=config.quotas(), kind_of=lambda index: kind_of(job.seed, index, job.mix), run=run_record(config))
    index = 0
    try:
        for step in range(1, steps + 1):
            while writer.tally.accepted.total() < 24 * step // steps:
                if writer.wants(index):
                    writer.add(pack(asyncio.run(pipeline.mill(index))))
                index += 1
            writer.flush()
            yield
    finally:
        writer.close()


def test_a_card_that_names_more_than_is_there_is_made_to_fit(hub: FakeHub, run: Path) -> None:
    """A crash, or a copy that was made while the run went on."""
    shutil.rmtree(run / "preferences")
    shutil.rmtree(run / "data" / "tool_call")
    push(run, REPO)
    configs = {one["config_name"]: one["data_files"] for one in front(hub)["configs"]}
    assert configs["default"] == ["data/goal_decomposition/*.parquet", "data/error_recovery/*.parquet"]
    assert set(configs) == {"default", "goal_decomposition", "error_recovery", "rejects"}


def test_shards_that_the_card_does_not_name_yet_wait_for_the_next_card(hub: FakeHub, run: Path) -> None:
    card = (run / "README.md").read_text()
    (run / "README.md").write_text(card.replace("- config_name: rejects\n  data_files: rejects/*.parquet\n", ""))
    push(run, REPO)
    assert not [name for name in on_the_hub(hub) if name.startswith("rejects")]
    (run / "README.md").write_text(card)
    push(run, REPO)
    assert on_the_hub(hub) == shards(run)


def test_a_change_of_the_card_alone_is_a_commit_that_says_so(hub: FakeHub, run: Path) -> None:
    push(run, REPO)
    card = run / "README.md"
    card.write_text(card.read_text().replace("Conversations of an agent", "Many conversations of an agent"))
    push(run, REPO)
    assert pushed(hub)[1] == "Update README.md (24 traces, complete)"


def test_an_import_is_pushed_with_its_own_schemas(hub: FakeHub, tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": f"Hello {at}."}, {"role": "assistant", "content": "Hello."}]} for at in range(5)]
    source, out = tmp_path / "rows.jsonl", tmp_path / "imported"
    source.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"messages": []}]))
    import_openai(source, out)
    push(out, REPO)
    assert pushed(hub) == ["Add 5 conversations and 1 rejection in 2 shards (5 conversations in all)"]
    names = [name for name in hub.repo(REPO).head.files if name.startswith("schemas/")]
    assert names == ["schemas/conversation.schema.json", "schemas/refusal.schema.json"]
    assert sorted(streamed([("main", "default")])[0]) == sorted(ids(out))


def test_what_people_preferred_is_pushed_without_the_run_that_they_judged(hub: FakeHub, run: Path, tmp_path: Path) -> None:
    pairs, store = Pairs(run), Store(store_path(run, whole=False))
    for _ in pairs.keys:
        ticket = store.next("Ada", pairs.keys, judges=1)
        assert ticket is not None
        store.judge("Ada", ticket.number, "left")
    export(pairs, measure(pairs, store.judgements()), tmp_path / "human", names=False)
    store.close()
    push(tmp_path / "human", REPO)
    number = len(pairs.keys)
    assert pushed(hub) == [f"Add {number} preference pairs and {number} judgements in 2 shards ({number} preference pairs in all)"]
    files = hub.repo(REPO).head.files
    assert [name for name in files if name.startswith("schemas/")] == ["schemas/preference.schema.json"]
    assert sorted(streamed([("main", "preferences")])[0]) == sorted(ids(tmp_path / "human", "preferences"))
    assert not any(b"Ada" in file.content for file in files.values())


def test_a_cleaned_run_brings_its_report_and_not_what_was_removed(hub: FakeHub, run: Path, tmp_path: Path) -> None:
    row = pq.read_table(sorted(run.glob("data/*/*.parquet"))[0], partitioning=None).to_pylist()[0]
    benchmark = tmp_path / "benchmark.json"
    benchmark.write_text(json.dumps([{"question": json.loads(row["messages"][1])["content"] + " And now the next, please, as before."}]))
    clean(Cleaning(run, tmp_path / "clean", benchmarks=(benchmark,)))
    push(tmp_path / "clean", REPO)
    files = hub.repo(REPO).head.files
    assert "hygiene.json" in files and any((tmp_path / "clean/removed").iterdir())
    assert on_the_hub(hub).keys() == {name for name in shards(tmp_path / "clean") if not name.startswith("removed/")}


# --- a Hub that fails ---------------------------------------------------------------------------------------


def test_an_upload_that_fails_in_the_middle_commits_nothing_and_is_continued(
    hub: FakeHub, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = len(shards(run))
    hub.on("PUT lfs", *[first(lambda: None)] * 2, *[fail(400)] * (many * pushing.ATTEMPTS))
    with pytest.raises(HubError, match="run the same command again"):
        push(run, REPO)
    assert pushed(hub) == [] and 0 < len(hub.objects) < many
    hub.forget()
    arrived, before = len(hub.objects), hub.requests["PUT lfs"]
    push(run, REPO)
    assert on_the_hub(hub) == shards(run) and hub.requests["PUT lfs"] - before == many - arrived


def test_an_upload_that_fails_for_a_moment_is_tried_again(hub: FakeHub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    hub.on("PUT lfs", fail(503), fail(500))
    push(run, REPO)
    assert on_the_hub(hub) == shards(run) and len(pushed(hub)) == 1


@pytest.mark.parametrize("status", [409, 412, 500, 503])
def test_a_commit_that_is_refused_for_now_is_planned_anew(hub: FakeHub, run: Path, status: int) -> None:
    hub.on("POST commit", fail(status))
    push(run, REPO)
    assert on_the_hub(hub) == shards(run) and len(pushed(hub)) == 1


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub: FakeHub, run: Path) -> None:
    hub.on("POST commit", lost(hub))
    push(run, REPO)
    assert len(pushed(hub)) == 1 and on_the_hub(hub) == shards(run)


def test_two_pushes_of_one_run_at_a_time_bring_each_shard_once(hub: FakeHub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "MOST_SHARDS", 4)
    hub.on("POST commit", first(lambda: push(run, REPO)))  # the other one comes in before the first commit
    push(run, REPO)
    assert on_the_hub(hub) == shards(run) and set(times_added(hub).values()) == {1}


def test_a_hub_that_stays_away_ends_the_push_with_what_to_do(hub: FakeHub, run: Path) -> None:
    hub.on("POST commit", *[fail(503, "Down for maintenance")] * pushing.ATTEMPTS)
    with pytest.raises(HubError) as error:
        push(run, REPO)
    assert "503" in problem(error) and "Down for maintenance" in problem(error) and "run the same command again" in problem(error)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("what", ["GET whoami", "POST create", "GET auth", "GET info"])
def test_a_hub_that_is_busy_at_the_first_checks_is_asked_again(hub: FakeHub, run: Path, what: str, status: int) -> None:
    hub.on(what, fail(status), fail(status))
    assert push(run, REPO) == 0
    assert on_the_hub(hub) == shards(run) and len(pushed(hub)) == 1


def test_signed_addresses_of_uploads_are_not_logged(
    hub: FakeHub, run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "propagate", True)
    hub.on("PUT lfs", fail(503), fail(500))
    push(run, REPO)
    assert hub.requests["PUT lfs"] == len(shards(run)) + 2
    assert "/lfs/" not in caplog.text


def test_a_token_that_comes_back_in_an_answer_is_not_told(hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.on("POST commit", fail(503, "busy with hf_good"), fail(400, "Authorization: Bearer hf_good"))
    with pytest.raises(HubError) as error:
        push(run, REPO)
    told = capsys.readouterr()
    assert "Bearer [token]" in problem(error) and "busy with [token]" in told.err
    assert "hf_good" not in problem(error) + told.out + told.err


def test_of_two_pushes_of_the_same_the_one_that_committed_tells_of_it(hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.on("POST preupload", first(lambda: push(run, REPO)))  # the other one comes in when this one has made its plan
    push(run, REPO)
    assert len(pushed(hub)) == 1
    told = capsys.readouterr()
    assert told.out.count("(1 commit)") == 1 and told.out.count("nothing was new") == 1
    assert told.err.count(pushed(hub)[0]) == 1


# --- what is checked first ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "repo", "said"),
    [
        ("", REPO, "set HF_TOKEN, or log in once by `hf auth login`"),
        ("hf_unknown", REPO, "does not know the token"),
        *((f"hf_sec{odd}ret", REPO, "characters that no token has") for odd in ("\x01", "\xa0", " ", "\u20ac")),
        ("hf_reader", REPO, "may read, not write"),
        ("hf_good", "others/agent-traces", "no repositories in others"),
        ("hf_good", "agent-traces", "org/agent-traces"),
        ("hf_good", "org/agent traces", "expected org/name"),
    ],
)
def test_a_token_or_a_name_that_does_not_do_is_refused_before_anything_is_made(
    hub: FakeHub, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str, repo: str, said: str
) -> None:
    hub.tokens["hf_reader"] = who("eve", role="read")
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ConfigError) as error:
        push(run, repo, every="1h")
    assert said in problem(error) and not hub.repos
    told = capsys.readouterr()
    assert not token or token not in problem(error) + told.out + told.err


def test_a_token_without_the_right_to_this_repository_is_refused(hub: FakeHub, run: Path) -> None:
    hub.read_only.add(f"datasets/{REPO}")
    with pytest.raises(ConfigError, match="may not write to the dataset org/agent-traces"):
        push(run, REPO)


def test_a_hub_that_cannot_be_reached_is_named(hub: FakeHub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"cannot ask the Hub at http://127\.0\.0\.1:9"):
        push(run, REPO)


def test_what_is_to_be_private_is_made_private_and_never_goes_to_a_public_place(hub: FakeHub, run: Path) -> None:
    push(run, REPO, private=True)
    assert hub.repo(REPO).private
    push(run, "org/open")
    with pytest.raises(ConfigError, match="there and public"):
        push(run, "org/open", private=True)


@pytest.mark.parametrize(("text", "wanted"), [("30s", 30), ("10m", 600), ("1h", 3600), ("1h30m", 5400), ("0.5s", 0.5)])
def test_times_are_read(text: str, wanted: float) -> None:
    assert seconds(text) == wanted


@pytest.mark.parametrize("text", ["", "10", "ten minutes", "0s", "5 m", "-1m", "1m!"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--every"):
        seconds(text)


# --- what would be mixed ------------------------------------------------------------------------------------


def test_a_repository_with_another_run_is_refused(hub: FakeHub, run: Path, tmp_path: Path) -> None:
    push(mill(tmp_path / "other", **{**SETTINGS, "accept": 3, "seed": 4}), REPO)
    with pytest.raises(DatasetError) as error:
        push(run, REPO)
    assert "another run" in problem(error) and "another --repo" in problem(error)
    assert len(pushed(hub)) == 1


def test_the_same_config_run_a_second_time_is_not_put_on_top_of_the_first(hub: FakeHub, run: Path, tmp_path: Path) -> None:
    push(run, REPO)
    again = mill(tmp_path / "again", **SETTINGS)  # the same traces, in other shards
    with pytest.raises(DatasetError, match="made another time"):
        push(again, REPO)
    assert on_the_hub(hub) == shards(run)


def test_a_repository_with_foreign_files_is_refused(hub: FakeHub, run: Path) -> None:
    from fake_hub import File, Repo

    hub.repos[f"datasets/{REPO}"] = Repo(private=False)
    hub.repo(REPO).add("mine", {"README.md": File(b"# Mine\n", False), "train.csv": File(b"a,b\n", False)})
    with pytest.raises(DatasetError, match=r"found train\.csv"):
        push(run, REPO)


def test_a_folder_with_nothing_to_push_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").touch()
    with pytest.raises(DatasetError, match=r"neither a run \(run\.json\) nor a training"):
        push(tmp_path / "notes", REPO)
    with pytest.raises(DatasetError, match="no such folder; with --every"):
        push(tmp_path / "missing", REPO)
    mill(tmp_path / "young", **{**SETTINGS, "accept": 1})
    for path in (tmp_path / "young").glob("**/*.parquet"):
        path.unlink()
    with pytest.raises(DatasetError, match="nothing to push yet"):
        push(tmp_path / "young", REPO)


def changed(out: Path, **fields: Any) -> None:
    """Fields of run.json, and the card written after it."""
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**record, **fields}))
    if (out / "README.md").exists():
        (out / "README.md").touch()


@pytest.mark.parametrize("text", ['{"a":', "[]", "{}", '{"digest": "x", "complete": true}'])
@pytest.mark.parametrize("every", [None, "0.05s"])
def test_a_record_that_is_none_is_a_fault_of_the_folder_and_makes_no_repository(
    hub: FakeHub, run: Path, every: str | None, text: str
) -> None:
    (run / "run.json").write_text(text)
    (run / "README.md").touch()
    with pytest.raises(DatasetError) as error:
        push(run, REPO, every=every)
    assert str(run) in problem(error) and "token" not in problem(error)
    assert every or not hub.repos


@pytest.mark.parametrize(("name", "text"), [("training.json", "{"), ("training.json", "[]"), ("training.json", "{}"), ("README.md", None)])
@pytest.mark.parametrize("every", [None, "0.05s"])
def test_a_training_that_is_damaged_is_a_fault_of_the_folder(
    hub: FakeHub, tmp_path: Path, every: str | None, name: str, text: str | None
) -> None:
    out = trained(tmp_path / "sft")
    (out / name).unlink()
    if text is not None:
        (out / name).write_text(text.replace("{}", '{"complete": true}'))
    with pytest.raises(DatasetError) as error:
        push(out, "org/agent", every=every)
    assert str(out) in problem(error) and "token" not in problem(error)
    assert every or not hub.repos


@pytest.mark.parametrize("lost", ["README.md", "shards"])
def test_a_complete_run_without_its_card_or_shards_is_not_waited_for(
    hub: FakeHub, run: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    from tracemill.hub import run as runs

    monkeypatch.setattr(runs, "SETTLED", 0.2)
    push(run, REPO)
    for path in run.glob("README.md" if lost == "README.md" else "**/*.parquet"):
        path.unlink()
    with pytest.raises(DatasetError, match="says that it is complete"):
        push(run, REPO, every="0.05s")


def test_a_card_that_is_about_to_be_written_is_waited_for(hub: FakeHub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tracemill.hub import run as runs

    monkeypatch.setattr(runs, "SETTLED", PATIENCE)
    card = run / "README.md"
    text = card.read_text()
    card.unlink()
    changed(run)
    later = threading.Timer(0.3, lambda: write_whole(card, text))
    later.start()
    try:
        assert push(run, REPO, every="0.05s") == 0
    finally:
        later.join()


def test_a_push_that_was_stopped_before_there_was_anything_says_nothing_of_the_repository(
    hub: FakeHub, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    push(run, REPO)
    capsys.readouterr()
    monkeypatch.setattr(pushing, "_follow", lambda *_: None)  # stopped at once
    assert push(tmp_path / "not-yet", REPO, every="1h") == 130
    told = capsys.readouterr().out
    assert "nothing was pushed" in told and "empty" not in told


def test_while_there_are_only_rejections_nothing_is_said_of_loading(hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = shutil.copytree(run, run.with_name("whole"))
    changed(run, complete=False)
    shutil.rmtree(run / "data")
    shutil.rmtree(run / "preferences")
    push(run, REPO)
    assert "load_dataset" not in capsys.readouterr().out
    push(whole, REPO)
    assert "load_dataset" in capsys.readouterr().out


# --- what is nobody's business ------------------------------------------------------------------------------

SECRET: dict[str, Any] = {
    "url": "http://10.1.2.3:8000/v1", "key_env": "MY_COMPANY_KEY", "prices": {"prompt": 1.5}, "timeout": 9.0, "temperature": 0.5,
    "model": "/home/me/models/agent-7b", "engine": {"hf_token": "hf_secret"}, "chat_template": "/home/me/template.jinja", "retries": 3,
}  # fmt: skip


def test_the_record_and_the_card_say_nothing_of_machine_endpoint_or_keys(
    hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads((run / "run.json").read_text())
    for part in ("config", "content"):
        record[part] |= {"teacher": SECRET, "environments": {"/home/me/tools.yaml": 1.0, "store": 1.0, "my_module:Bank": 1.0}}
    record["config"]["constitution"] = "/home/me/rules.yaml"
    (run / "run.json").write_text(json.dumps(record))
    card = (
        (run / "README.md")
        .read_text()
        .replace("`scripted`", "`/home/me/models/agent-7b`")
        .replace("`store`", "`/home/me/tools.yaml`, `store`")
    )
    (run / "README.md").write_text(card)
    rewrite(run, "data/*", teacher="/home/me/models/agent-7b")
    push(run, REPO)
    files = hub.repo(REPO).head.files
    for name in ("run.json", "README.md"):
        text = files[name].content.decode()
        assert not [word for word in ("/home/me", "10.1.2.3", "MY_COMPANY", "hf_secret", "prices", "retries") if word in text], name
    told = json.loads(files["run.json"].content)
    assert told["config"]["teacher"] == {"model": "agent-7b", "temperature": 0.5}
    assert list(told["config"]["environments"]) == ["tools.yaml", "store", "my_module:Bank"]
    assert told["digest"] == record["digest"] and told["counts"] == record["counts"]
    assert "`agent-7b`" in files["README.md"].content.decode()
    assert "Each trace names its teacher" in capsys.readouterr().err


def test_a_place_is_taken_out_of_the_card_only_where_it_stands_alone() -> None:
    run = {"config": {"teacher": {"model": "/home/me/agent"}, "environments": {"/data": 1, "./": 1, "/data/tools.yaml": 1, "/srv/a/": 1}}}
    untouched = "See ./docs, https://hub.example/data and my/data, /database, ../data"
    assert public_text(untouched, run) == untouched
    assert public_text("`/home/me/agent`, /data/tools.yaml (/data). /srv/a/b", run) == "`agent`, tools.yaml (data). a/b"


def test_two_files_of_one_name_stay_two() -> None:
    run = {"config": {"environments": {"/a/tools.yaml": 1.0, "/b/tools.yaml": 2.0, "store": 1.0}}}
    assert public_run(run)["config"]["environments"] == {"tools.yaml": 1.0, "tools.yaml (2)": 2.0, "store": 1.0}


def test_the_address_of_a_licence_is_published(hub: FakeHub, tmp_path: Path) -> None:
    link = "https://example.org/our-terms"
    push(mill(tmp_path / "run", **{**SETTINGS, "accept": 3, "license": link}), REPO)
    files = hub.repo(REPO).head.files
    assert json.loads(files["run.json"].content)["config"]["license"] == link
    assert link in files["README.md"].content.decode() and "not published" not in files["README.md"].content.decode()


def rewrite(out: Path, place: str, **columns: Any) -> None:
    """Columns of all shards there, the same in each row."""
    for path in out.glob(f"{place}/*.parquet"):
        table = pq.read_table(path, partitioning=None)
        for name, value in columns.items():
            at = table.schema.get_field_index(name)
            table = table.set_column(at, table.schema.field(at), pa.array([value] * table.num_rows, table.schema.field(at).type))
        pq.write_table(table, path)


@pytest.mark.parametrize("teacher", ["agent-7b", "org/agent-7b", "/home/me/agent-7b"])
def test_the_teachers_that_the_shards_name_are_told_if_they_are_places(
    hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str], teacher: str
) -> None:
    record = json.loads((run / "run.json").read_text())
    record["config"]["teacher"] = {"model": "/home/me/models/whatever"}
    (run / "run.json").write_text(json.dumps(record))
    (run / "README.md").touch()
    rewrite(run, "data/*", teacher=teacher)
    push(run, REPO)
    told = capsys.readouterr().err
    assert ("column `teacher` shows" in told) == (f"shows {teacher}." in told) == teacher.startswith("/")


@pytest.mark.parametrize(
    ("stage", "reason", "place"),
    [
        ("infrastructure", "no reply: Cannot connect to host 10.1.2.3:8000 ssl:default", "10.1.2.3:8000"),
        ("infrastructure", "400, url='http://gpu-7:8000/v1/chat/completions'", "http://gpu-7:8000/v1/chat/completions"),
        ("infrastructure", "no reply: Cannot connect to host gpu-7:8000 ssl:default", "gpu-7:8000"),
        ("infrastructure", r"OSError: C:\Users\me\prices.csv is gone", r"C:\Users\me\prices.csv"),
        ("infrastructure", "OSError: ~/secret/prices.csv is gone", "~/secret/prices.csv"),
        ("infrastructure", "FileNotFoundError: No such file: '/home/me/secret/prices.csv'", "/home/me/secret/prices.csv"),
        ("infrastructure", "KeyError: 'a/b', 3/4, v1.2.3, and/or 10:30", None),
        ("goal", "/home/me/secret/prices.csv was not read", None),
    ],
)
def test_faults_of_this_machine_in_the_ledger_are_told(
    hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str], stage: str, reason: str, place: str | None
) -> None:
    rewrite(run, "rejects", stage=stage, reason=reason, evidence=["prices.py, line 3, in load"])
    push(run, REPO)
    told = capsys.readouterr().err
    assert (f"such as {place}:" in told) if place else ("The ledger" not in told)


def test_a_published_record_of_a_plain_run_is_the_record(many_shards: Path) -> None:
    record = json.loads((many_shards / "run.json").read_text())
    assert public_run(record) == record


def test_the_constitution_goes_along_only_if_it_is_the_one_that_judged(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tracemill.constitution.constitution import BUNDLED

    own = tmp_path / "rules.yaml"
    own.write_text(BUNDLED.read_text() + "# of our house\n")
    out = mill(tmp_path / "run", **{**SETTINGS, "accept": 3, "constitution": str(own)})
    push(out, REPO)
    assert hub.repo(REPO).head.files["constitution.yaml"].content == own.read_bytes()
    own.write_text(own.read_text().replace("severity: high", "severity: low"))
    push(out, "org/other")
    assert "constitution.yaml" not in hub.repo("org/other").head.files
    assert "The constitution is left out" in capsys.readouterr().err


# --- a training ---------------------------------------------------------------------------------------------


def trained(out: Path, *, base: str = "Qwen/Qwen3-8B", local: bool = False, seed: int = 0) -> Path:
    """The files that a training leaves, with little in them."""
    settings = {"method": "lora", "model": base, "reasoning": "train", "license": None, "data": ["first"], "seed": seed}
    record: dict[str, Any] = {
        "tracemill": "0.1.0", "kind": "sft", "settings": settings, "model": {"name": base, **({"fingerprint": "ab"} if local else {})},
        "datasets": [{"name": "first", "run": "cd", "tracemill": "0.1.0", "license": "apache-2.0", "shards": 1, "fingerprint": "ef"}],
        "processes": 1, "versions": {"trl": "1.16"}, "complete": True, "told": ["3 rows"], "history": [{"loss": 2.0}, {"loss": 1.0}],
    }  # fmt: skip
    (out / "checkpoint-3").mkdir(parents=True)
    (out / "merged").mkdir()
    for name in ("checkpoint-3/optimizer.pt", "merged/model.safetensors", "training_args.bin"):
        (out / name).write_bytes(b"no")
    adapter = {"peft_type": "LORA", "base_model_name_or_path": f"/home/me/{base}" if local else base}
    texts = {"training.json": record, "adapter_config.json": adapter, "tokenizer_config.json": {"eos_token": "</s>"}}
    for name, text in texts.items():
        (out / name).write_text(json.dumps(text))
    (out / "README.md").write_text(training_card.render(record))
    for name in ("adapter_model.safetensors", "tokenizer.json", "chat_template.jinja", "curves.png"):
        (out / name).write_bytes(name.encode())
    return out


def test_a_training_becomes_a_model_without_checkpoints(hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = trained(tmp_path / "sft")
    assert push(out, "org/agent") == 0
    files = hub.repo("org/agent", "models").head.files
    assert set(files) - {".gitattributes"} == {
        "training.json", "adapter_config.json", "tokenizer_config.json", "README.md", "adapter_model.safetensors", "tokenizer.json",
        "chat_template.jinja", "curves.png",
    }  # fmt: skip
    assert files["adapter_model.safetensors"].lfs and files["adapter_model.safetensors"].content == b"adapter_model.safetensors"
    assert pushed(hub, "org/agent", "models") == ["Add the adapter trained by sft on first in 4 files"]
    assert front(hub, "org/agent", "models")["base_model"] == "Qwen/Qwen3-8B"
    assert 'from_pretrained("org/agent")' in files["README.md"].content.decode()
    told = capsys.readouterr()
    assert "merged is left out" in told.err
    assert "hf download org/agent --local-dir runs/agent\n" in told.out and "evaluate --policy runs/agent --out" in told.out
    push(out, "org/agent")
    assert len(pushed(hub, "org/agent", "models")) == 1


def test_a_base_model_of_this_machine_is_not_taken_for_one_of_the_hub(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push(trained(tmp_path / "sft", base="my-model", local=True), "org/agent")
    files = hub.repo("org/agent", "models").head.files
    assert "base_model" not in front(hub, "org/agent", "models") and "datasets" not in front(hub, "org/agent", "models")
    assert json.loads(files["adapter_config.json"].content)["base_model_name_or_path"] == "my-model"
    assert not [name for name, file in files.items() if b"/home/me" in file.content]
    assert "is a folder of this machine" in capsys.readouterr().err


def test_a_training_goes_in_one_commit_and_takes_the_place_of_what_was_there(hub: FakeHub, tmp_path: Path) -> None:
    from fake_hub import File

    out = trained(tmp_path / "sft")
    parts = [out / f"model-{number:05}-of-00060.safetensors" for number in range(60)]
    for path in parts:
        path.write_bytes(path.name.encode())
    push(out, "org/agent")
    assert pushed(hub, "org/agent", "models") == ["Add the adapter trained by sft on first in 64 files"]
    hub.repo("org/agent", "models").add("by hand", {"LICENSE": File(b"MIT", False), "images/loss.png": File(b"png", True)})
    for path in parts:
        path.unlink()
    push(out, "org/agent")
    (out / "adapter_model.safetensors").write_bytes(b"new")
    (out / "curves.png").unlink()
    push(out, "org/agent")
    files = hub.repo("org/agent", "models").head.files
    assert {"LICENSE", "images/loss.png", "adapter_model.safetensors"} <= set(files) and "curves.png" not in files
    assert not [name for name in files if name.startswith("model-")]
    assert pushed(hub, "org/agent", "models")[2:] == [
        "Remove 60 files", "Add the adapter trained by sft on first in 1 file; remove 1 file"
    ]  # fmt: skip


def test_of_a_trainings_folder_goes_what_belongs_to_the_model(hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = trained(tmp_path / "sft")
    own = ("train.log", "recipe.yaml", "eval.json", "README.md.bak", "notes.md", "model.py")
    model = (
        "model.safetensors.index.json",
        "vocab.json",
        "merges.txt",
        "tokenizer.model",
        "special_tokens_map.json",
        "generation_config.json",
    )
    for name in (*own, *model):
        (out / name).write_text('{"/home": 1}' if name == "vocab.json" else "{}")
    push(out, "org/agent")
    files = hub.repo("org/agent", "models").head.files
    assert not set(own) & set(files) and set(model) <= set(files)
    assert files["vocab.json"].content == b'{"/home": 1}'
    told = capsys.readouterr().err
    assert all(name in told for name in own) and "training_args.bin" not in told


def test_the_configs_of_a_model_name_no_folder_however_deep(hub: FakeHub, tmp_path: Path) -> None:
    out = trained(tmp_path / "sft")
    config = {"text_config": {"_name_or_path": "/home/me/base", "parts": [{"at": "/home/me/part"}]}, "model_type": "x"}
    tokens = {"added_tokens_decoder": {"0": {"content": "//"}}, "tokenizer_file": "/home/me/base/tokenizer.json"}
    for name, text in {"config.json": config, "tokenizer_config.json": tokens, "generation_config.json": ["a"]}.items():
        (out / name).write_text(json.dumps(text))
    push(out, "org/agent")
    files = hub.repo("org/agent", "models").head.files
    assert not [name for name, file in files.items() if b"/home/me" in file.content]
    assert json.loads(files["config.json"].content)["text_config"] == {"_name_or_path": "base", "parts": [{"at": "part"}]}
    assert json.loads(files["tokenizer_config.json"].content)["added_tokens_decoder"] == {"0": {"content": "//"}}
    assert json.loads(files["generation_config.json"].content) == ["a"]


def test_another_training_is_refused_and_one_that_is_not_done_waits(hub: FakeHub, tmp_path: Path) -> None:
    push(trained(tmp_path / "one"), "org/agent")
    with pytest.raises(DatasetError, match="another training"):
        push(trained(tmp_path / "two", seed=1), "org/agent")
    record = json.loads((tmp_path / "one" / "training.json").read_text())
    (tmp_path / "one" / "training.json").write_text(json.dumps({**record, "complete": False}))
    with pytest.raises(DatasetError, match="nothing to push yet"):
        push(tmp_path / "one", "org/agent")


# --- while a run is made ------------------------------------------------------------------------------------


HALF_MADE = """
import signal
from tracemill.writer import Writer

wants = Writer.wants
Writer.wants = lambda self, index: signal.pause() if self.tally.accepted.total() >= 100 else wants(self, index)
"""
"""Half of it is made, and then nothing more until somebody kills it."""
MAKE = """
import sys
from pathlib import Path
from conftest import mill
from tracemill import writer

writer.SHARD_ROWS = 20
mill(Path(sys.argv[1]), accept=200, environments=["store", "bank"], flaws=0.3)
"""


def test_a_run_that_is_made_meanwhile_arrives_whole_though_both_are_killed(hub: FakeHub, tmp_path: Path) -> None:
    """The maker is killed between two shards, the push in the middle of an upload; OUT is not there at first."""
    out, env = tmp_path / "run", environment(hub, tmp_path / "home")
    command = [sys.executable, "-m", "tracemill", "push", str(out), "--repo", REPO, "--every", "0.3s"]
    with running(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as first_push:
        until(lambda: f"datasets/{REPO}" in hub.repos, first_push)  # the repository is there before the run is
        hub.on("PUT lfs", *[first(lambda: None)] * 6, first(first_push.kill))
        with running([sys.executable, "-c", HALF_MADE + MAKE, str(out)], env=env) as first_maker:
            until(lambda: bool(pushed(hub)) or first_push.poll() is not None, first_maker)
        with running([sys.executable, "-c", MAKE, str(out)], env=env) as second_maker:
            assert first_push.wait(PATIENCE) == -signal.SIGKILL
            second_push = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE)
            assert second_maker.wait(PATIENCE) == 0
    assert second_push.returncode == 0, second_push.stderr
    assert on_the_hub(hub) == shards(out) and set(times_added(hub).values()) == {1}
    (found,) = streamed([("main", "default")])
    assert sorted(found) == sorted(ids(out)) and len(set(found)) == 200
    assert json.loads(hub.repo(REPO).head.files["run.json"].content)["complete"]
    assert "The dataset is complete." in hub.repo(REPO).head.files["README.md"].content.decode()


def test_ctrl_c_brings_what_there_is_and_says_that_the_run_is_not_complete(hub: FakeHub, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "tracemill", "push", str(out), "--repo", REPO, "--every", "1h"]
    with contextlib.closing(growing(out)) as grown:
        next(grown)
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with running(command, env=environment(hub, tmp_path / "home"), **options) as going:
            until(lambda: f"datasets/{REPO}" in hub.repos and bool(pushed(hub)), going)
            next(grown)
            going.send_signal(signal.SIGINT)
            told, notes = going.communicate(timeout=PATIENCE)
        assert going.returncode == 130, notes
        assert on_the_hub(hub) == shards(out) and len(pushed(hub)) == 2
    assert "not being complete yet" in told


def test_a_hub_that_is_away_for_a_while_does_not_end_a_long_push(hub: FakeHub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "ATTEMPTS", 1)
    hub.on("POST commit", fail(503), fail(502), fail(429))
    assert push(run, REPO, every="0.05s") == 0
    assert on_the_hub(hub) == shards(run) and len(pushed(hub)) == 1


def test_while_a_run_is_made_a_card_alone_is_no_commit(hub: FakeHub, run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "complete": False}))
    (run / "README.md").touch()
    api, _ = open_repo(REPO, "dataset", private=False)
    going = pushing.Push(api, run, REPO, "dataset", lambda _: None)
    going.bring(wait=True)
    (run / "README.md").write_text((run / "README.md").read_text() + "\nMore.\n")
    going.bring(wait=True)
    assert len(pushed(hub)) == 1
    (run / "run.json").write_text(json.dumps(record))
    (run / "README.md").touch()
    going.bring(wait=True)
    assert pushed(hub)[1:] == ["Update README.md and run.json (24 traces, complete)"]


def test_a_commit_of_a_single_trace_says_so(hub: FakeHub, tmp_path: Path) -> None:
    push(mill(tmp_path / "one", **{**SETTINGS, "accept": {"tool_call": 1}, "flaws": 0.0}), REPO)
    assert pushed(hub)[0].startswith("Add 1 tool_call trace ")
