"""`tracemill view` without a browser: index, filters, search, records, and who may ask."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yarl
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from datasets import load_dataset
from processes import PATIENCE, running

from tracemill.columns import Row, plain_row, table, to_row
from tracemill.stats import part_files
from tracemill.trace import KINDS, Conversation, Trace
from tracemill.viewer.api import terms, viewer
from tracemill.viewer.index import FORMAT, Index, cache_path
from tracemill.viewer.selection import Wanted, select
from tracemill.viewer.server import TOKEN, application, reply

Rewrite = Callable[[Callable[[Row], None]], Path]


@pytest.fixture(scope="module")
def indexed(milled: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    index = Index(milled, tmp_path_factory.mktemp("index") / "index.sqlite")
    index.update()
    return index


def all_rows(out: Path, *folders: str) -> list[dict[str, Any]]:
    return [row for folder in folders for path in part_files(out / folder) for row in pq.read_table(path, partitioning=None).to_pylist()]


def traces(out: Path) -> list[dict[str, Any]]:
    return all_rows(out, *(f"data/{kind}" for kind in KINDS))


@asynccontextmanager
async def asked(app: web.Application, headers: Mapping[str, str] | None = None) -> AsyncIterator[TestClient[Any, Any]]:
    """A client of the application that has its token, unless other headers are given."""
    given = {"Authorization": f"Bearer {app[TOKEN]}"} if headers is None else headers
    async with TestClient(TestServer(app), headers=given) as client:
        yield client


@asynccontextmanager
async def viewing(out: Path, index: Path) -> AsyncIterator[TestClient[Any, Any]]:
    """A client, once everything that is there has been indexed."""
    async with asked(viewer(out, index)) as client:
        await settled(client)
        yield client


async def settled(client: TestClient[Any, Any]) -> None:
    await told(client, lambda run: bool(run["settled"]))


async def told(client: TestClient[Any, Any], what: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """What the server says of the run, as soon as that is so."""
    async with asyncio.timeout(PATIENCE):
        while not what(run := await got(client, "/api/run")):  # noqa: ASYNC110 - a thread of the server does it
            await asyncio.sleep(0.02)
    return dict(run)


async def got(client: TestClient[Any, Any], path: str) -> Any:
    answer = await client.get(path)
    assert answer.status == 200, await answer.text()
    return await answer.json()


# --- index --------------------------------------------------------------------------------------------------


def test_every_record_of_a_run_is_listed_once(milled: Path, indexed: Index) -> None:
    for part, folders in (("traces", [f"data/{kind}" for kind in KINDS]), ("rejects", ["rejects"]), ("preferences", ["preferences"])):
        found = select(indexed.snapshot, Wanted(part, {}))  # type: ignore[arg-type]
        with indexed.connect() as db:
            names = {db.execute("SELECT name FROM records WHERE id = ?", (int(id),)).fetchone()[0] for id in found.ids}
        assert len(found.ids) == len(names) and names == {row["id"] for row in all_rows(milled, *folders)}


def test_records_are_listed_in_the_order_in_which_scenarios_were_drawn(indexed: Index) -> None:
    found = select(indexed.snapshot, Wanted("traces", {}))
    indices = indexed.snapshot.column("index")[found.ids].tolist()
    assert indices == sorted(indices)


def test_filters_and_their_counts_say_what_the_shards_say(milled: Path, indexed: Index) -> None:
    rows = traces(milled)
    found = select(indexed.snapshot, Wanted("traces", {"kind": ["tool_call"], "environment": ["bank"]}, ["revised"]))
    assert len(found.ids) == sum(row["kind"] == "tool_call" and row["environment"] == "bank" and row["revisions"] > 0 for row in rows)
    assert found.of == len(rows)
    one = select(indexed.snapshot, Wanted("traces", {"kind": ["tool_call"]}))
    assert dict(one.facets["kind"]) == {kind: sum(row["kind"] == kind for row in rows) for kind in KINDS}
    store = sum(row["kind"] == "tool_call" and row["environment"] == "store" for row in rows)
    assert dict(one.facets["environment"])["store"] == store
    assert one.flags["revised"] == sum(row["kind"] == "tool_call" and row["revisions"] > 0 for row in rows)


def test_flags_tell_faults_masked_steps_and_broken_principles(milled: Path, indexed: Index) -> None:
    flags = select(indexed.snapshot, Wanted("traces", {})).flags
    rows = traces(milled)
    masked = sum(any(json.loads(message).get("train") is False for message in row["messages"]) for row in rows)
    assert flags["masked"] == masked > 0
    assert flags["fault"] == sum(bool(json.loads(row["scenario"])["faults"]) for row in rows) > 0
    rejected = all_rows(milled, "rejects")
    failed = sum(any(not json.loads(verdict)["passed"] for verdict in row["verdicts"]) for row in rejected)
    assert select(indexed.snapshot, Wanted("rejects", {})).flags["failed"] == failed > 0


def test_a_shard_that_comes_is_added_and_the_others_are_not_read_again(
    milled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tracemill.viewer import index as module

    read: list[Path] = []
    entries = module._entries
    monkeypatch.setattr(module, "_entries", lambda part, path: [read.append(path), *entries(part, path)][1:])
    out = tmp_path / "run"
    shutil.copytree(milled / "data" / "tool_call", out / "data" / "tool_call")
    index = Index(out, tmp_path / "index.sqlite")
    assert index.update() and not index.update()
    before = index.snapshot
    shutil.copytree(milled / "data" / "error_recovery", out / "data" / "error_recovery")
    assert index.update()
    assert index.snapshot.shards[: len(before.shards)] == before.shards
    assert len(read) == len(set(read)) == len(index.snapshot.shards) > len(before.shards)
    again = Index(out, tmp_path / "index.sqlite")
    assert again.snapshot.version == index.snapshot.version and not again.update()
    assert len(read) == len(index.snapshot.shards)


@pytest.mark.parametrize("change", ["changed", "gone"])
def test_a_shard_that_has_changed_or_is_gone_starts_the_index_anew(milled: Path, tmp_path: Path, change: str) -> None:
    out = tmp_path / "run"
    shutil.copytree(milled / "data", out / "data")
    index = Index(out, tmp_path / "index.sqlite")
    index.update()
    path = part_files(out / "data" / "tool_call")[0]
    rows = pq.read_table(path, partitioning=None).to_pylist()
    if change == "gone":
        path.unlink()
    else:
        pq.write_table(table(Trace, rows[1:]), path)
    assert index.update()
    assert index.snapshot.cells.shape[1] == len(traces(out)) < len(traces(milled))
    assert dict(index.snapshot.calls) == dict(Index(out, tmp_path / "index.sqlite").snapshot.calls)


def test_two_processes_share_an_index(milled: Path, tmp_path: Path) -> None:
    first, second = (Index(milled, tmp_path / "index.sqlite") for _ in range(2))
    assert first.update()
    assert second.update() and second.snapshot.version == first.snapshot.version


@pytest.mark.parametrize("content", [b"this is no database at all" * 100, b""])
def test_an_index_that_is_broken_or_of_another_version_is_made_anew(milled: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "index.sqlite"
    if content:
        path.write_bytes(content)
    else:
        with Index(milled, path).connect() as db:
            db.execute(f"PRAGMA user_version = {FORMAT + 1}")
    index = Index(milled, path)
    index.update()
    assert index.snapshot.cells.shape[1]


def test_a_shard_that_cannot_be_read_is_told_and_the_others_are_shown(milled: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(milled / "data", out / "data")
    (out / "data" / "tool_call" / "part-00007.parquet").write_bytes(b"PAR1 not really PAR1")
    index = Index(out, tmp_path / "index.sqlite")
    index.update()
    assert [shard.path.name for shard in index.snapshot.shards if shard.problem] == ["part-00007.parquet"]
    assert index.snapshot.cells.shape[1] == len(traces(milled))


def test_a_text_that_is_no_unicode_stops_no_index(milled: Path, tmp_path: Path) -> None:
    """A lone surrogate in a label is shown as ?; a column that is no UTF-8 is a problem of its shard."""
    out = tmp_path / "run"
    shutil.copytree(milled / "data", out / "data")
    path = part_files(out / "data" / "tool_call")[0]
    rows = pq.read_table(path, partitioning=None).to_pylist()
    rows[0]["scenario"] = json.dumps({**json.loads(rows[0]["scenario"]), "honest_end": None, "ending": "odd \ud800"})
    pq.write_table(table(Trace, rows), path)
    path = part_files(out / "data" / "error_recovery")[0]
    read = pq.read_table(path, partitioning=None)
    spoiled = pa.array([b"\xff"] * len(read), pa.binary()).view(pa.string())
    pq.write_table(read.set_column(read.schema.get_field_index("template"), "template", spoiled), path)
    index = Index(out, tmp_path / "index.sqlite")
    index.update()
    assert [shard.path for shard in index.snapshot.shards if shard.problem] == [path]
    assert index.snapshot.cells.shape[1] == len(traces(milled)) - len(read)
    assert ("odd ?", 1) in select(index.snapshot, Wanted("traces", {})).facets["ending"]


async def test_whatever_befalls_the_index_is_told_and_tried_again(milled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update, lucky = Index.update, threading.Event()

    def unlucky(index: Index) -> bool:
        if not lucky.is_set():
            raise RuntimeError("out of luck")
        return update(index)

    monkeypatch.setattr(Index, "update", unlucky)
    monkeypatch.setattr("tracemill.viewer.api.AGAIN", 0.05)
    async with asked(viewer(milled, tmp_path / "index.sqlite")) as client:
        run = await told(client, lambda run: run["problems"] != [])
        assert "out of luck" in run["problems"][0] and not run["settled"]
        lucky.set()
        run = await told(client, lambda run: run["settled"])
        assert run["problems"] == [] and run["parts"]["traces"] == 60


def test_a_row_that_is_no_record_is_listed_as_one(rewritten: Rewrite, tmp_path: Path) -> None:
    spoiled: list[str] = []

    def spoil(row: Row) -> None:
        if "scenario" in row and not spoiled:
            spoiled.append(row["id"])
            row["scenario"] = "{"

    index = Index(rewritten(spoil), tmp_path / "index.sqlite")
    index.update()
    assert select(index.snapshot, Wanted("traces", {}, ["broken"])).ids.size == 1


async def test_the_output_folder_is_left_as_it_was(milled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "run"
    shutil.copytree(milled, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    out.chmod(0o555)
    async with asked(viewer(out)) as client:
        await settled(client)
    out.chmod(0o755)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert cache_path(out).is_relative_to(tmp_path / "cache") and cache_path(out).exists()
    loaded = load_dataset(str(out), "tool_call", split="train", cache_dir=str(tmp_path / "datasets"))
    assert loaded.num_rows == len(all_rows(out, "data/tool_call"))


# --- answers ------------------------------------------------------------------------------------------------


async def test_a_page_of_the_list_holds_what_was_asked_for(milled: Path, tmp_path: Path) -> None:
    async with viewing(milled, tmp_path / "index.sqlite") as client:
        first = await got(client, "/api/list?part=traces&limit=7")
        second = await got(client, "/api/list?part=traces&from=7&limit=7")
        assert first["total"] == 60 and len(first["rows"]) == len(second["rows"]) == 7
        assert not {row["name"] for row in first["rows"]} & {row["name"] for row in second["rows"]}
        near = await got(client, f"/api/list?part=traces&limit=1&near={second['rows'][2]['name']}")
        assert near["at"] == 9
        assert (await got(client, "/api/list?part=traces&kind=nonsense"))["total"] == 0


@pytest.mark.parametrize(
    "query", ["part=nonsense", "part=traces&flag=nonsense", "part=traces&from=-1", "part=traces&limit=x", "part=traces&from=²"]
)
async def test_a_question_that_makes_no_sense_is_refused(milled: Path, tmp_path: Path, query: str) -> None:
    async with asked(viewer(milled, tmp_path / "index.sqlite")) as client:
        answer = await client.get(f"/api/list?{query}")
        assert answer.status == 400 and (await answer.json())["error"]


async def test_a_search_finds_what_the_messages_say(milled: Path, tmp_path: Path) -> None:
    rows = traces(milled)
    said = {row["id"]: " ".join(row["messages"][1:]).lower() for row in rows}
    word = "refund"
    async with viewing(milled, tmp_path / "index.sqlite") as client:
        found = await got(client, f"/api/list?part=traces&q={word}&limit=200")
        assert 0 < found["total"] < len(rows)
        assert all(word in said[row["name"]] for row in found["rows"])
        without = await got(client, f"/api/list?part=traces&q=-{word}")
        assert found["total"] + without["total"] == len(rows)
        assert (await got(client, f"/api/list?part=traces&q={rows[3]['id']}"))["rows"][0]["name"] == rows[3]["id"]
        begins = await got(client, "/api/list?part=traces&q=refu*")
        assert begins["total"] >= found["total"]
        tool = json.loads(rows[0]["messages"][2]).get("tool_calls", [{"function": {"name": "get_order"}}])[0]["function"]["name"]
        assert (await got(client, f"/api/list?part=traces&q={tool}"))["total"] > 0


@pytest.mark.parametrize(
    "query",
    [
        '"',
        '""',
        "*",
        "-",
        "a AND",
        "NEAR(",
        "text:x",
        "(((",
        "'; DROP TABLE records",
        "\ud800",
        "\x00",
        "x\x00y",
        "^",
        "—",
        "{}",
        '"a" OR',
        "ö*",
    ],
)
async def test_no_search_is_an_error(milled: Path, tmp_path: Path, query: str) -> None:
    async with viewing(milled, tmp_path / "index.sqlite") as client:
        answer = await client.get("/api/list", params={"part": "traces", "q": query.encode(errors="replace").decode()})
        assert answer.status == 200


def test_a_search_is_words_phrases_beginnings_and_what_must_be_missing() -> None:
    assert terms("refund _ -___ x\0y") == ('"refund" AND "x" AND "y"', "")
    assert terms('red "blue shoes" -refund carg* ca* -"a b"') == ('"red" AND "blue shoes" AND "carg"* AND "ca"', '"refund" OR "a b"')


async def test_a_record_is_answered_as_load_dataset_shows_it(milled: Path, tmp_path: Path) -> None:
    rows = traces(milled)
    async with viewing(milled, tmp_path / "index.sqlite") as client:
        for row in (rows[0], rows[-1]):
            found = await got(client, f"/api/record?name={row['id']}")
            assert found["form"] == "trace" and found["part"] == "traces" and not found["problem"]
            assert found["record"]["messages"] == [json.loads(text) for text in row["messages"]]
            assert found["record"]["digest"] == row["digest"]
        missing = await client.get("/api/record?name=tm-nothing")
        assert missing.status == 400


async def test_marks_stand_at_the_messages_that_they_speak_of(milled: Path, tmp_path: Path) -> None:
    troubled = [row for row in all_rows(milled, "data/error_recovery") if json.loads(row["scenario"])["faults"]]
    refused = [row for row in all_rows(milled, "rejects") if row["stage"] == "constitution"]
    async with viewing(milled, tmp_path / "index.sqlite") as client:
        for row in troubled:
            marks = (await got(client, f"/api/record?name={row['id']}"))["marks"]
            labels = {int(at): {mark["label"] for mark in some} for at, some in marks.items()}
            assert {at for at, some in labels.items() if "recovery" in some} == set(json.loads(row["recovery"])["recovery"])
            assert any(label.startswith("fault: ") for some in labels.values() for label in some)
        for row in refused:
            marks = (await got(client, f"/api/record?name={row['id']}"))["marks"]
            for verdict in map(json.loads, row["verdicts"]):
                if verdict.get("at") is not None:
                    told = [mark for mark in marks[str(verdict["at"])] if mark["label"] == verdict["principle"]]
                    assert told[0]["tone"] == ("good" if verdict["passed"] else "bad") and verdict["why"] in told[0]["detail"]


async def test_a_record_that_does_not_conform_is_shown_with_what_is_wrong(rewritten: Rewrite, tmp_path: Path) -> None:
    spoiled: list[str] = []

    def spoil(row: Row) -> None:
        if "scenario" in row and len(spoiled) < 2:
            spoiled.append(row["id"])
            row["scenario" if len(spoiled) == 1 else "kind"] = "{"

    async with viewing(rewritten(spoil), tmp_path / "index.sqlite") as client:
        for name in spoiled:
            found = await got(client, f"/api/record?name={name}")
            assert "no whole record" in found["problem"] and found["record"]["messages"]


async def test_charts_count_what_the_run_counts(milled: Path, tmp_path: Path) -> None:
    counts = json.loads((milled / "run.json").read_text())["counts"]
    async with viewing(milled, tmp_path / "index.sqlite") as client:
        figures = await got(client, "/api/charts")
    assert dict(figures["accepted"]["kind"]) == counts["accepted"]
    assert figures["lost"] == sum(counts["rejected"].values())
    assert figures["rejects"] - figures["lost"] == counts["revised"]
    assert figures["preferences"] == counts["preferences"]
    assert {stage: lost for stage, _, lost in figures["funnel"] if lost} == counts["rejected"]
    assert sum(figures["lengths"]["messages"]["counts"]) == figures["traces"] == 60
    calls = sum(len(json.loads(message).get("tool_calls") or ()) for row in traces(milled) for message in row["messages"])
    assert sum(number for _, number, _ in figures["tools"]) == calls


async def test_an_imported_dataset_is_shown(tmp_path: Path, milled: Path) -> None:
    seen = [Trace.model_validate(plain_row(Trace, row)) for row in traces(milled)[:3]]
    made = [
        Conversation(id="", source="a.jsonl", index=at, reward=1.0, messages=one.messages, tools=one.tools).sealed()
        for at, one in enumerate(seen)
    ]
    out = tmp_path / "imported"
    (out / "data" / "imported").mkdir(parents=True)
    pq.write_table(table(Conversation, [to_row(one) for one in made]), out / "data" / "imported" / "part-00000.parquet")
    (out / "run.json").write_text(json.dumps({"import": {"file": "a.jsonl"}, "counts": {"accepted": 3}}))
    async with viewing(out, tmp_path / "index.sqlite") as client:
        assert (await got(client, "/api/run"))["imported"]
        found = await got(client, "/api/list?part=traces")
        assert [row["name"] for row in found["rows"]] == [one.id for one in made]
        record = await got(client, f"/api/record?name={made[1].id}")
        assert record["form"] == "conversation" and record["record"]["source"] == "a.jsonl"


async def test_a_run_that_grows_is_shown_as_it_grows(milled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracemill.viewer.api.AGAIN", 0.05)
    out = tmp_path / "run"
    out.mkdir()
    run = json.loads((milled / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**run, "complete": False}))
    async with viewing(out, tmp_path / "index.sqlite") as client:
        empty = await got(client, "/api/run")
        assert empty["parts"] == {"traces": 0, "rejects": 0, "preferences": 0} and empty["complete"] is False
        assert (await got(client, "/api/list?part=traces"))["total"] == 0
        assert (await got(client, "/api/charts"))["traces"] == 0
        shutil.copytree(milled / "data", out / "data")
        await told(client, lambda run: run["parts"]["traces"] == 60)
        assert (await got(client, "/api/list?part=traces"))["total"] == 60


async def test_a_lone_surrogate_and_a_large_integer_come_through(rewritten: Rewrite, tmp_path: Path) -> None:
    names: list[str] = []

    def strange(row: Row) -> None:
        if "scenario" in row and not names:
            names.append(row["id"])
            row["messages"] = [*row["messages"][:1], '{"role":"user","content":"odd \\ud800 text"}', *row["messages"][2:]]

    async with viewing(rewritten(strange), tmp_path / "index.sqlite") as client:
        text = await (await client.get(f"/api/record?name={names[0]}")).text()
        assert "odd \\ud800 text" in text


async def test_a_run_that_is_gone_is_told(milled: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(milled, tmp_path / "run"))
    async with viewing(out, tmp_path / "index.sqlite") as client:
        assert (await got(client, "/api/run"))["problems"] == []
        shutil.rmtree(out)
        assert "holds no run" in " ".join((await got(client, "/api/run"))["problems"])


# --- who may ask --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/run", "/api/list?part=traces", "/api/record?name=x", "/api/charts", "/api/nothing"])
@pytest.mark.parametrize("given", ["", "Bearer ", "Bearer wrong", "Basic wrong", "Bearer ö", "TOKEN"])
async def test_nothing_is_answered_without_the_token(milled: Path, tmp_path: Path, path: str, given: str) -> None:
    app = viewer(milled, tmp_path / "index.sqlite")
    header = f"Bearer {app[TOKEN][:-1]}" if given == "TOKEN" else given
    async with asked(app, {"Authorization": header}) as client:
        answer = await client.get(path)
        assert answer.status == 401
        assert "tm-" not in await answer.text()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example:1", "[::1]:1", "0.0.0.0:1", "localhost.evil:1"]
)
async def test_another_host_name_is_refused_even_with_the_token(milled: Path, tmp_path: Path, host: str) -> None:
    async with asked(viewer(milled, tmp_path / "index.sqlite")) as client:
        for path in ("/", "/view.js", "/api/run"):
            assert (await client.get(path, headers={"Host": host})).status == 403
        assert (await client.get("/api/run", headers={"Host": "localhost:9999"})).status == 200


async def test_a_page_of_another_site_is_refused(milled: Path, tmp_path: Path) -> None:
    async with asked(viewer(milled, tmp_path / "index.sqlite")) as client:
        assert (await client.get("/api/run", headers={"Sec-Fetch-Site": "cross-site"})).status == 403
        assert (await client.get("/api/run", headers={"Sec-Fetch-Site": "same-site"})).status == 403
        assert (await client.get("/api/run", headers={"Sec-Fetch-Site": "same-origin"})).status == 200
        preflight = await client.options(
            "/api/run", headers={"Origin": "http://evil.example", "Access-Control-Request-Headers": "authorization"}
        )
        assert "Access-Control-Allow-Origin" not in preflight.headers and preflight.status != 200


@pytest.mark.parametrize("path", ["/", "/view.js", "/style.css", "/icon.svg", "/nothing", "/api/run", "/api/list?part=x", "/api/nothing"])
async def test_every_answer_has_the_headers_that_keep_a_browser_in_bounds(milled: Path, tmp_path: Path, path: str) -> None:
    async with asked(viewer(milled, tmp_path / "index.sqlite")) as client:
        headers = (await client.get(path)).headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path", ["/../server.py", "/%2e%2e/server.py", "/..%2fserver.py", "//etc/passwd", "/page/../../server.py", "/__init__.py"]
)
async def test_only_files_of_the_page_are_served(milled: Path, tmp_path: Path, path: str) -> None:
    app = viewer(milled, tmp_path / "index.sqlite")
    async with asked(app) as client:
        url = yarl.URL(f"http://127.0.0.1:{client.port}{path}", encoded=True)
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert answer.status == 404


async def test_a_failure_of_the_server_tells_no_more_than_its_kind(capsys: pytest.CaptureFixture[str]) -> None:
    async def broken(request: web.Request) -> web.Response:
        raise RuntimeError("a secret path")

    async def well(request: web.Request) -> web.Response:
        return reply({"said": "ö\ud800"})

    async with asked(application([web.get("/api/broken", broken), web.get("/api/well", well)], [])) as client:
        answer = await client.get("/api/broken")
        assert answer.status == 500 and "RuntimeError" in await answer.text() and "secret" not in await answer.text()
        assert (await (await client.get("/api/well")).json())["said"].startswith("ö")
    assert "a secret path" in capsys.readouterr().err


def test_no_script_of_the_pages_can_make_markup_of_text() -> None:
    for path in Path("src/tracemill/viewer/page").glob("*.js"):
        text = path.read_text()
        for danger in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "DOMParser", "srcdoc"):
            assert danger not in text, (path.name, danger)


# --- the command --------------------------------------------------------------------------------------------


def start(*arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tracemill", "view", *arguments]
    return running(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})


async def test_the_command_prints_an_address_that_answers_and_ctrl_c_ends_it(
    milled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with start(str(milled), "--no-open") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        address, _, token = lines[1].strip().partition("/#token=")
        assert address.startswith("http://127.0.0.1:") and len(token) > 40
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession() as session, session.get(f"{address}/api/run", headers=headers) as answer:
            assert answer.status == 200
        with start(str(milled), "--no-open", "--port", address.rpartition(":")[2]) as taken:
            _, told = taken.communicate(timeout=PATIENCE)
        assert taken.returncode == 2 and "--port" in told
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0 and "Traceback" not in errors


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with start(str(tmp_path), "--no-open") as process:
        _, told = process.communicate(timeout=PATIENCE)
    assert process.returncode == 2 and "holds no run" in told
