"""`tracemill verify`: no false alarm, and nothing tampered with goes unseen."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import mill
from tampering import KINDS, ONLY_THE_DIGEST, Plain, seal

from tracemill.columns import Row, plain_row, shapes, table
from tracemill.constitution.constitution import Constitution, load_constitution
from tracemill.errors import DatasetError
from tracemill.job import build_job
from tracemill.pipeline import Job
from tracemill.schemas.check import record_checker
from tracemill.trace import KINDS as TRACE_KINDS
from tracemill.trace import Preference, Record, Rejection, Trace
from tracemill.verify import check_row, read_run, run_config, schema_problems, verify

TYPES: dict[str, type[Record]] = {"data": Trace, "preferences": Preference, "rejects": Rejection}
TIMES = 10  # that each kind of tampering is tried in the slow test; fewer, 200 in all, in the quick ones


@dataclass(frozen=True)
class Standard:
    job: Job
    constitution: Constitution
    traces: list[Plain]

    async def findings(self, trace: Plain) -> list[tuple[str, str]]:
        return await check_row(as_row(trace), "trace", self.job, self.constitution, {})


def rows_of(out: Path, pattern: str) -> list[Row]:
    return [row for path in sorted(out.glob(pattern)) for row in pq.read_table(path, partitioning=None).to_pylist()]


def as_row(trace: Plain) -> Row:
    """As it lies in Parquet: JSON columns as text."""
    row: Row = {}
    for name, value in trace.items():
        shape = shapes(Trace).get(name)
        if shape == "records" and isinstance(value, list):
            row[name] = [json.dumps(one, ensure_ascii=False) for one in value]
        else:
            row[name] = json.dumps(value, ensure_ascii=False) if shape in ("json", "records") else value
    return row


def tampered(name: str, traces: list[Plain], times: int) -> Iterator[Plain]:
    """Traces that were tampered with in this way, each different from what it was and, as far as possible, another one."""
    rng = random.Random(f"tamper/{name}")
    made = 0
    for _ in range(times):
        for trace in rng.sample(traces, len(traces)):
            changed = KINDS[name](copy.deepcopy(trace), rng)
            if changed is not None and changed != trace:
                yield changed
                made += 1
                if made == times:
                    return
    raise AssertionError(f"{name} applies to {made} traces only")


@pytest.fixture(scope="module")
def standard(dataset: Path) -> Standard:
    traces = [plain_row(Trace, row) for row in rows_of(dataset, "data/*/*.parquet")]
    return Standard(build_job(run_config(read_run(dataset))), load_constitution(), traces)


# --- records ------------------------------------------------------------------------------------------------


MEANING = sorted(KINDS.keys() - ONLY_THE_DIGEST.keys())
"""Kinds that are found by what the record says, whatever its digest."""


def test_two_hundred_traces_of_twenty_kinds_and_more_are_tampered_with(standard: Standard) -> None:
    assert len(MEANING) >= 40
    assert len(KINDS) * 3 >= 200
    assert len(MEANING) * 4 >= 200
    assert ONLY_THE_DIGEST.keys() < KINDS.keys()
    assert all(seal(trace) == trace for trace in standard.traces), "the forger of these tests makes another digest than the writer"


@pytest.mark.parametrize("name", KINDS)
async def test_a_tampered_trace_is_found(name: str, standard: Standard) -> None:
    for changed in tampered(name, standard.traces, 3):
        assert await standard.findings(changed), changed["id"]


@pytest.mark.parametrize("name", MEANING)
async def test_a_tampered_trace_is_found_by_what_it_says_where_the_digest_was_made_anew(name: str, standard: Standard) -> None:
    for changed in tampered(name, standard.traces, 4):
        found = {check for check, _ in await standard.findings(seal(changed))}
        assert found and not found & {"digest", "error"}, (changed["id"], found)


@pytest.mark.parametrize("name", ONLY_THE_DIGEST)
async def test_what_only_the_digest_shows_is_listed_as_such_and_nothing_else_is(name: str, standard: Standard) -> None:
    found = [await standard.findings(seal(changed)) for changed in tampered(name, standard.traces, 10)]
    assert not all(found), f"{name} is found by what it says: take it off the list"


@pytest.mark.slow
async def test_every_kind_of_tampering_is_found_many_times(standard: Standard) -> None:
    for name in KINDS:
        for changed in tampered(name, standard.traces, TIMES):
            assert await standard.findings(changed), (name, changed["id"])
            assert name in ONLY_THE_DIGEST or await standard.findings(seal(changed)), (name, changed["id"])


async def test_a_random_change_of_any_value_is_found_and_stops_no_check(standard: Standard) -> None:
    rng = random.Random(11)
    for trace in rng.choices(standard.traces, k=40):
        changed = copy.deepcopy(trace)
        place: Any = changed
        while True:
            key = rng.choice(sorted(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], dict | list) or not place[key] or rng.random() < 0.1:
                break
            place = place[key]
        place[key] = rng.choice([one for one in (None, True, -1, 7.5, "", "x", [], {}, [{}], {"x": 1}) if one != place[key]])
        assert await standard.findings(changed), key
        if key != "digest":
            assert not [problem for check, problem in await standard.findings(seal(changed)) if check == "error"]


async def test_a_row_that_is_not_even_json_is_found(standard: Standard) -> None:
    for name, value in (("scenario", "{"), ("messages", ["["]), ("messages", 5), ("tools", [None]), ("scenario", "[" * 5000)):
        found = await check_row({**as_row(standard.traces[0]), name: value}, "trace", standard.job, standard.constitution, {})
        assert [check for check, _ in found] == ["schema"]


def test_the_schema_taken_apart_says_what_the_published_one_says(dataset: Path) -> None:
    rng = random.Random(12)
    for record, pattern in (("trace", "data/*/*.parquet"), ("preference", "preferences/*.parquet"), ("rejection", "rejects/*.parquet")):
        whole = record_checker(record, exact=True)
        cls = {"trace": Trace, "preference": Preference, "rejection": Rejection}[record]
        for row in rng.choices(rows_of(dataset, pattern), k=15):
            assert schema_problems(record, row, plain_row(cls, row)) == []
            name = rng.choice(sorted(set(row) & {"messages", "tools", "scenario", "outcome", "prompt", "verdicts"}))
            for old, new in (('"role"', '"rule"'), ('"assistant"', '"tool"'), ('"content"', '"contents"'), ("true", "1"), (":", ":[],")):
                value = row[name]
                changed = [one.replace(old, new) for one in value] if isinstance(value, list) else value and value.replace(old, new)
                broken = {**row, name: changed}
                try:
                    plain = plain_row(cls, broken)
                except ValueError:
                    continue
                found, expected = schema_problems(record, broken, plain), whole.problems(plain)
                assert sorted(map(str, found)) == sorted(map(str, expected))


# --- files --------------------------------------------------------------------------------------------------


SMALL = {"environments": ["store", "bank"], "seed": 2, "flaws": 0.5}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mill(tmp_path_factory.mktemp("small") / "run", accept=18, **SMALL)


@pytest.fixture
def out(small: Path, tmp_path: Path) -> Path:
    """A copy of a small dataset, to be tampered with."""
    return Path(shutil.copytree(small, tmp_path / "run"))


def edit(path: Path, change: Callable[[Row], object], at: int = 0) -> Row:
    """Rewrite a shard with one row changed; that row."""
    rows = pq.read_table(path, partitioning=None).to_pylist()
    change(rows[at])
    cls = TYPES[path.parent.name if path.parent.name in TYPES else "data"]
    pq.write_table(table(cls, rows), path)
    return rows[at]


def checks(out: Path) -> set[str]:
    """What a check of the whole finds; it must end with 0 or 1, whatever lies there."""
    report = out.parent / "report.jsonl"
    code = verify(out, workers=1, report=report)
    found = {json.loads(line)["check"] for line in report.read_text(encoding="utf-8").splitlines()}
    assert code == bool(found)
    return found


def test_a_good_dataset_passes(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(dataset, workers=1) == 0
    assert "All good. 150 traces" in capsys.readouterr().out


def test_several_processes_find_what_one_finds(out: Path) -> None:
    edit(out / "data/tool_call/part-00000.parquet", lambda row: row.update(teacher="someone-else"))
    reports = [out.parent / f"{workers}.jsonl" for workers in (1, 2)]
    assert [verify(out, workers=workers, report=report) for workers, report in enumerate(reports, 1)] == [1, 1]
    assert reports[0].read_text(encoding="utf-8") == reports[1].read_text(encoding="utf-8")


def test_a_tampered_record_is_named(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(row: Row) -> None:
        row["messages"] = [*row["messages"][:-1], json.dumps({"role": "assistant", "content": "Done.", "train": True})]

    edited = edit(out / "data/tool_call/part-00000.parquet", change, at=3)
    report = out.parent / "report.jsonl"
    assert verify(out, report=report) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert f"data/tool_call/part-00000.parquet row 3 {edited['id']}" in told
    assert "1 record(s) failed" in told
    assert {json.loads(line)["id"] for line in report.read_text(encoding="utf-8").splitlines()} == {edited["id"]}


def test_a_missing_shard_is_found(out: Path) -> None:
    (out / "data/tool_call/part-00000.parquet").unlink()
    assert "count" in checks(out)


def test_a_missing_ledger_is_found(out: Path) -> None:
    shutil.rmtree(out / "rejects")
    assert {"count", "ledger"} <= checks(out)


def test_missing_preferences_are_found(out: Path) -> None:
    shutil.rmtree(out / "preferences")
    assert checks(out) == {"count"}


def test_a_shard_that_is_there_twice_is_found(out: Path) -> None:
    shutil.copy(out / "data/error_recovery/part-00000.parquet", out / "data/error_recovery/part-00009.parquet")
    assert "id" in checks(out)


def test_a_shard_among_those_of_another_kind_is_found(out: Path) -> None:
    shutil.move(out / "data/error_recovery/part-00000.parquet", out / "data/tool_call/part-00009.parquet")
    assert "place" in checks(out)


@pytest.mark.parametrize("share", [0, 0.9])
@pytest.mark.parametrize("folder", ["data/tool_call", "preferences", "rejects"])
def test_a_truncated_file_is_reported(out: Path, folder: str, share: float) -> None:
    path = out / folder / "part-00000.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "file" in checks(out)


def test_a_file_with_broken_pages_is_reported(out: Path) -> None:
    path = out / "data/tool_call/part-00000.parquet"
    whole = bytearray(path.read_bytes())
    for at in range(200, len(whole) // 2, 50):
        whole[at] ^= 255
    path.write_bytes(whole)
    assert "file" in checks(out)


def test_a_file_with_other_columns_is_reported(out: Path) -> None:
    pq.write_table(pa.table({"index": ["a", "b"], "text": [1, 2]}), out / "data/tool_call/part-00000.parquet")
    assert "schema" in checks(out)


def test_a_trace_put_in_the_place_of_another_is_found(out: Path) -> None:
    """A good record of the same run, but of an index that would have come later."""
    shard = next(out.glob("data/goal_decomposition/*.parquet"))
    more = mill(out.parent / "more", accept=24, **SMALL)
    last = max(rows_of(more, "data/goal_decomposition/*.parquet"), key=lambda row: row["index"])
    edit(shard, lambda row: row.update(last))
    assert "count" in checks(out)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rejected", [json.dumps({"role": "assistant", "content": "No.", "train": True})]),
        ("chosen", [json.dumps({"role": "assistant", "content": "Yes.", "train": True})]),
        ("prompt", [json.dumps({"role": "user", "content": "Hi."})]),
        ("tools", []),
        ("margin", 2.0),
        ("source", "revision:be_nice"),
        ("trace", "tm-0"),
        ("id", "tm-0.p1"),
        ("index", 10_000),
    ],
)
def test_a_preference_that_was_edited_is_found(out: Path, name: str, value: object) -> None:
    edit(out / "preferences/part-00000.parquet", lambda row: row.update({name: value}))
    assert checks(out) == {"preference"}


@pytest.mark.parametrize(("name", "value"), [("id", "tm-0.0"), ("template", "other"), ("environment", "travel"), ("final", None)])
def test_a_rejection_that_was_edited_is_found(out: Path, name: str, value: object) -> None:
    edit(out / "rejects/part-00000.parquet", lambda row: row.update({name: not row["final"] if name == "final" else value}))
    assert checks(out)


def test_a_count_of_revisions_that_was_edited_is_found_by_the_ledger(out: Path) -> None:
    def change(row: Row) -> None:
        changed = seal({**plain_row(Trace, row), "revisions": (row["revisions"] + 1) % 3})
        row.update(revisions=changed["revisions"], digest=changed["digest"])

    edit(out / "data/tool_call/part-00000.parquet", change)
    assert "ledger" in checks(out)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "there is no run.json"),
        ("{", "cannot be read"),
        ("[]", "not the record of a run"),
        ("{}", "no valid config"),
        ('{"config": 5}', "no valid config"),
        ('{"config": {"accept": "many"}}', "no valid config"),
        ('{"config": {"seed": 4}, "digest": "0"}', "another digest"),
    ],
)
def test_a_run_json_that_is_missing_or_broken_is_told(out: Path, text: str | None, told: str) -> None:
    if text is None:
        (out / "run.json").unlink()
    else:
        (out / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=told):
        verify(out, workers=1)


def test_a_config_with_another_number_is_found(out: Path) -> None:
    run = read_run(out)
    run["config"]["accept"] = 21
    (out / "run.json").write_text(json.dumps(run), encoding="utf-8")
    assert checks(out) == {"count"}


def test_an_empty_folder_is_no_dataset(out: Path) -> None:
    shutil.rmtree(out / "data")
    with pytest.raises(DatasetError, match="no accepted traces"):
        verify(out, workers=1)


# --- no false alarm -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_thousand_good_traces_raise_no_alarm(tmp_path: Path) -> None:
    out = mill(tmp_path / "run", accept=2000, seed=17, flaws=0.1)
    assert len(rows_of(out, "data/*/*.parquet")) == 2000
    assert {path.parent.name for path in out.glob("data/*/*.parquet")} == set(TRACE_KINDS)
    report = tmp_path / "report.jsonl"
    assert verify(out, report=report) == 0, report.read_text(encoding="utf-8")
