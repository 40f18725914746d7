"""People judge pairs: nothing they said is lost or counted twice, agreement is measured, and what they decide is a dataset."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp.test_utils import TestClient, TestServer
from conftest import mill
from hypothesis import given
from hypothesis import strategies as st
from processes import PATIENCE, running
from typer.testing import CliRunner

from tracemill.annotating.alpha import nominal_alpha
from tracemill.annotating.export import export
from tracemill.annotating.pairs import Pairs
from tracemill.annotating.progress import measure
from tracemill.annotating.server import pages
from tracemill.annotating.session import Session
from tracemill.annotating.store import CLAIM, Press, Refused, Store, named, store_path
from tracemill.annotating.verify import verify_export
from tracemill.cli import app
from tracemill.columns import table
from tracemill.errors import ConfigError, DatasetError
from tracemill.trace import Json, Preference
from tracemill.verify import verify
from tracemill.viewer.server import TOKEN

ORDER = {f"pair-{number}": None for number in range(6)}.keys()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "kept" / "messages.sqlite")
    yield store
    store.close()


@pytest.fixture
def out(milled: Path, tmp_path: Path) -> Path:
    """A run, its pairs in one shard."""
    out = Path(shutil.copytree(milled, tmp_path / "run"))
    rows = pq.read_table(out / "preferences").to_pylist()
    for path in out.glob("preferences/*.parquet"):
        path.unlink()
    pq.write_table(table(Preference, rows), out / "preferences" / "part-00000.parquet")
    return out


def say(store: Store, who: str, press: Press, judges: int = 2, order: Any = ORDER, **why: Any) -> str:
    """Judge what comes next, and return which pair that was."""
    ticket = store.next(who, order, judges=judges)
    assert ticket is not None
    store.judge(who, ticket.number, press, **why)
    return ticket.pair


def votes(out: Path, *said: dict[str, str], whole: bool = False) -> Pairs:
    """Let people judge: for each pair in the common order, what each says of the run's own labels."""
    pairs, store = Pairs(out, whole=whole), Store(store_path(out, whole=whole))
    for key, who_says in zip(pairs.keys, said, strict=False):
        for who, says in who_says.items():
            ticket = store.next(who, {key: None}.keys(), judges=9)
            assert ticket is not None
            is_left = (says == "chosen") == (ticket.left == pairs[key].chosen)
            store.judge(who, ticket.number, says if says in ("tie", "skip") else "left" if is_left else "right")  # type: ignore[arg-type]
    store.close()
    return pairs


def report_of(pairs: Pairs) -> Any:
    store = Store(store_path(pairs.out, whole=pairs.whole))
    report = measure(pairs, store.judgements())
    store.close()
    return report


# --- agreement ----------------------------------------------------------------------------------------------


def rated(*observers: str) -> list[list[str]]:
    """Units from one line for each observer; a dot is a missing value."""
    return [[value for value in unit if value != "."] for unit in zip(*(line.split() for line in observers), strict=True)]


@pytest.mark.parametrize(
    ("units", "alpha"),
    [
        # Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), sections A, B and C
        (rated("0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"), 0.095),
        (rated("a a b b d c c c e d d a", "b a b b b c c c e d d d"), 0.692),
        (rated("1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .", "1 2 3 3 2 4 4 1 2 5 1 ."), 0.743),
    ],
)  # fmt: skip
def test_alpha_is_that_of_the_published_examples(units: list[list[str]], alpha: float) -> None:
    assert nominal_alpha(units) == pytest.approx(alpha, abs=0.0005)


@given(st.lists(st.lists(st.sampled_from("abt"), max_size=5), max_size=12))
def test_alpha_is_one_less_observed_over_expected_disagreement_counted_pair_by_pair(units: list[list[str]]) -> None:
    judged = [unit for unit in units if len(unit) > 1]
    values = [value for unit in judged for value in unit]
    observed = sum(2 * sum(a != b for a, b in combinations(unit, 2)) / (len(unit) - 1) for unit in judged)
    expected = 2 * sum(a != b for a, b in combinations(values, 2))
    if not expected:
        assert nominal_alpha(units) is None
    else:
        assert nominal_alpha(units) == pytest.approx(1 - (observed / len(values)) / (expected / (len(values) * (len(values) - 1))))


# --- the store ----------------------------------------------------------------------------------------------


def test_the_side_of_each_candidate_is_drawn_anew_for_each_person_and_pair_and_then_kept(store: Store) -> None:
    sides, pairs = {}, 300  # of so many, less than a third or more than two come by chance once in ten million times
    for number in range(pairs):
        order = {f"pair-{number}": None}.keys()
        for who in ("Ada", "Ben"):
            ticket, again = store.next(who, order, judges=2), store.next(who, order, judges=2)
            assert ticket is not None and ticket == again
            sides[who, number] = ticket.left
    firsts = Counter(who for (who, _), left in sides.items() if left == "first")
    assert all(pairs / 3 < firsts[who] < pairs * 2 / 3 for who in ("Ada", "Ben"))
    assert pairs / 3 < sum(sides["Ada", number] == sides["Ben", number] for number in range(pairs)) < pairs * 2 / 3


def test_a_judgement_is_kept_with_its_reasons_and_by_what_it_says_of_the_candidates(store: Store) -> None:
    pairs = [say(store, "Ada", press, reasons=["clearer"], note="so — „schön“") for press in ("left", "right", "tie", "skip")]  # type: ignore[arg-type]
    found = list(store.judgements())
    with closing(sqlite3.connect(store.path)) as db:
        lefts = dict(db.execute('SELECT pair, "left" FROM shown'))
    other = {"first": "second", "second": "first"}
    assert [one.choice for one in found] == [lefts[pairs[0]], other[lefts[pairs[1]]], "tie", "skip"]
    assert [one.pair for one in found] == pairs
    assert {(one.annotator, one.reasons, one.note) for one in found} == {("Ada", ("clearer",), "so — „schön“")}


def test_a_pair_that_is_judged_cannot_be_judged_again_from_another_window(store: Store) -> None:
    other = Store(store.path)
    one, same = store.next("Ada", ORDER, judges=2), other.next("Ada", ORDER, judges=2)
    assert one is not None and one == same
    store.judge("Ada", one.number, "left")
    with pytest.raises(Refused, match="already"):
        other.judge("Ada", one.number, "right")
    assert [judgement.press for judgement in other.judgements()] == ["left"]
    following = other.next("Ada", ORDER, judges=2)
    other.close()
    assert following is not None and following.pair != one.pair


def test_of_many_windows_that_judge_at_once_exactly_one_wins_each_pair(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracemill.annotating.store.PATIENCE", PATIENCE)
    order = {f"pair-{number}": None for number in range(25)}.keys()
    tickets = []
    for key in order:
        ticket = store.next("Ada", {key: None}.keys(), judges=2)
        assert ticket is not None
        tickets.append(ticket.number)
    outcomes: list[str] = []  # not a counter: threads that add to one at a time lose some

    def work(press: Press) -> None:
        with closing(Store(store.path)) as mine:
            for ticket in tickets:
                try:
                    mine.judge("Ada", ticket, press)
                    outcomes.append("won")
                except Refused:
                    outcomes.append("lost")

    threads = [threading.Thread(target=work, args=(press,)) for press in ("left", "right", "tie", "skip")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (outcomes.count("won"), outcomes.count("lost")) == (25, 75)
    assert len(list(store.judgements())) == 25


def test_nobody_judges_on_the_ticket_of_another(store: Store) -> None:
    ticket = store.next("Ada", ORDER, judges=2)
    assert ticket is not None
    for who, number in (("Ben", ticket.number), ("Ada", 999)):
        with pytest.raises(Refused, match="not put before you"):
            store.judge(who, number, "left")


def test_what_was_answered_as_saved_outlives_kill_9(store: Store) -> None:
    script = (
        "import sys; from pathlib import Path; from tracemill.annotating.store import Store\n"
        "store = Store(Path(sys.argv[1]))\n"
        "for number in range(10**6):\n"
        "    ticket = store.next('Ada', {f'pair-{number}': None}.keys(), judges=2)\n"
        "    print(store.judge('Ada', ticket.number, 'left', ['clearer'], 'why'), flush=True)\n"
    )
    with running([sys.executable, "-c", script, str(store.path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        answered = [int(process.stdout.readline()) for _ in range(40)]
        process.send_signal(signal.SIGKILL)
        answered += [int(line) for line in process.stdout if line.endswith("\n")]
    with closing(Store(store.path)) as again:
        kept = [one.act for one in again.judgements()]
    assert kept[: len(answered)] == answered and len(kept) - len(answered) <= 1
    with closing(sqlite3.connect(store.path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_an_act_is_on_disk_before_it_is_answered(store: Store) -> None:
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_undo_is_an_act_of_its_own_after_which_the_pair_comes_again_on_the_same_side(store: Store) -> None:
    first = store.next("Ada", ORDER, judges=2)
    assert first is not None
    act = store.judge("Ada", first.number, "left", ["clearer"], "why")
    assert store.next("Ada", ORDER, judges=2) != first
    back = store.undo("Ada", act)
    assert (back.press, back.reasons, back.note) == ("left", ("clearer",), "why")
    assert list(store.judgements()) == []
    assert store.next("Ada", ORDER, judges=2) == first
    store.judge("Ada", first.number, "right")
    assert [one.press for one in store.judgements()] == ["right"]
    assert [press for (press,) in store._db.execute("SELECT press FROM acts ORDER BY id")] == ["left", "undo", "right"]


def test_only_the_last_judgement_that_stands_can_be_taken_back_and_only_once(store: Store) -> None:
    say(store, "Ada", "left")
    say(store, "Ada", "tie")
    say(store, "Ben", "left")
    one, two, bens = (judgement.act for judgement in store.judgements())
    for act in (one, bens, 999):
        with pytest.raises(Refused, match="no longer your last"):
            store.undo("Ada", act)
    store.undo("Ada", two)
    with pytest.raises(Refused):
        store.undo("Ada", two)
    store.undo("Ada", one)
    assert [judgement.annotator for judgement in store.judgements()] == ["Ben"]


@pytest.mark.parametrize("statement", ["UPDATE acts SET press = 'right'", "DELETE FROM acts"])
def test_no_act_is_ever_changed_or_deleted(store: Store, statement: str) -> None:
    say(store, "Ada", "left")
    with pytest.raises(sqlite3.IntegrityError, match="never"):
        store._db.execute(statement)


def test_a_file_that_is_no_store_is_refused_with_what_it_should_be(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "messages.sqlite"
    path.parent.mkdir()
    path.write_text("not a database, " * 100)
    with pytest.raises(DatasetError, match="cannot be opened"):
        Store(path)
    path.unlink()
    Store(path)._db.execute("PRAGMA user_version = 7")
    with pytest.raises(DatasetError, match="expected format 1, found 7"):
        Store(path)


@pytest.mark.parametrize("another", [False, True])
def test_nothing_is_taken_for_saved_in_a_file_that_is_gone(store: Store, another: bool) -> None:
    say(store, "Ada", "left")
    last, ticket = store.last("Ada"), store.next("Ada", ORDER, judges=2)
    assert last is not None and ticket is not None
    shutil.rmtree(store.path.parent)
    if another:
        Store(store.path).close()
    for late in (
        lambda: store.judge("Ada", ticket.number, "left"),
        lambda: store.undo("Ada", last.act),
        lambda: store.next("Ada", ORDER, judges=2),
    ):
        with pytest.raises(DatasetError, match="nothing is saved"):
            late()


# --- who is given what --------------------------------------------------------------------------------------


def test_everybody_walks_the_same_order_until_a_pair_has_its_judges(store: Store) -> None:
    order = list(ORDER)
    assert [say(store, "Ada", "left") for _ in range(3)] == order[:3]
    assert [say(store, "Ben", "left") for _ in range(2)] == order[:2]
    assert [say(store, "Cleo", "left") for _ in range(4)] == order[2:6], "the first two have both their judges"
    assert [say(store, "Ada", "left") for _ in range(3)] == order[3:]
    assert store.next("Ada", ORDER, judges=2) is None


def test_who_skips_is_no_judge_of_a_pair_and_is_not_given_it_again(store: Store) -> None:
    assert say(store, "Ada", "skip", judges=1) == "pair-0"
    assert say(store, "Ada", "left", judges=1) == "pair-1"
    assert say(store, "Ben", "left", judges=1) == "pair-0"


def test_a_pair_that_is_open_before_another_counts_as_being_judged_for_a_while(store: Store) -> None:
    opened = store.next("Ada", ORDER, judges=1)
    assert opened is not None and opened.pair == "pair-0"
    assert say(store, "Ben", "left", judges=1) == "pair-1"
    store._db.execute("UPDATE shown SET at = at - ? WHERE annotator = 'Ada'", (CLAIM + 1,))
    assert say(store, "Ben", "left", judges=1) == "pair-0", "Ada has gone"


@pytest.mark.parametrize("name", ["", "  ", "a\x00b", "x" * 65, "a\u202eb"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--name"):
        named(name, [])


def test_a_name_is_one_however_its_letters_are_composed() -> None:
    composed, apart = "Jos\u00e9", "Jose\u0301"
    assert named(apart, []) == named(apart, [composed]) == composed
    assert named(composed, [apart]) == named(apart, [apart]) == apart, "who has judged under it goes on"
    with pytest.raises(ConfigError, match="but for its case"):
        named(composed.lower(), [apart])


def test_a_name_that_differs_in_case_alone_is_taken_for_a_slip() -> None:
    assert named("  Ada   L. ", ["Ada L."]) == "Ada L."
    with pytest.raises(ConfigError, match="'Ada'"):
        named("ada", ["Ada"])


# --- pairs, blind -------------------------------------------------------------------------------------------


def views(out: Path, whole: bool = False, number: int = 8) -> list[Json]:
    """What one person is shown, pair after pair."""
    shutil.rmtree(out / ".annotations", ignore_errors=True)
    store = Store(store_path(out, whole=whole))
    session = Session(store, Pairs(out, whole=whole), "Ada", judges=2)
    shown = []
    for _ in range(number):
        shown.append(session.view())
        session.judge(shown[-1]["ticket"], "left", [], "")
    store.close()
    for one in shown:
        one["progress"].pop("last")
    return shown


def test_what_is_shown_is_the_same_when_the_run_has_its_labels_the_other_way_round(out: Path) -> None:
    before = views(out)
    for path in out.glob("preferences/*.parquet"):
        rows = pq.read_table(path, partitioning=None).to_pylist()
        for row in rows:
            row.update(chosen=row["rejected"], rejected=row["chosen"], margin=0.1, source="revision:other")
        pq.write_table(table(Preference, rows), path)
    assert views(out) == before


@pytest.mark.parametrize("whole", [False, True])
def test_no_id_label_or_mark_of_a_pair_goes_out(out: Path, whole: bool) -> None:
    shown = views(out, whole)
    rows = [row for path in out.glob("preferences/*.parquet") for row in pq.read_table(path, partitioning=None).to_pylist()]
    text = json.dumps(shown)
    assert not [row["id"] for row in rows if row["id"] in text or row["trace"] in text]
    assert not {row["source"] for row in rows if row["source"] in text}
    assert all(one.keys() == {"ticket", "prompt", "left", "right", "tools", "progress", "whole"} for one in shown)
    keys = {key for one in shown for side in ("prompt", "left", "right") for message in one[side] for key in message}
    assert keys <= {"role", "content", "reasoning_content", "tool_calls", "tool_call_id", "name"}


def test_which_candidate_is_first_has_nothing_to_do_with_which_the_run_prefers(milled: Path) -> None:
    pairs = Pairs(milled)
    firsts = sum(pairs[key].chosen == "first" for key in pairs.keys)
    assert 0.15 < firsts / len(pairs.keys) < 0.85


def test_whole_trajectories_begin_with_the_two_messages_and_go_on_to_the_end(milled: Path) -> None:
    pairs = Pairs(milled, whole=True)
    assert pairs.keys == Pairs(milled).keys
    for key in pairs.keys:
        found = pairs.load(pairs[key])
        assert (found.chosen[:1], found.rejected[:1]) == (found.preference.chosen, found.preference.rejected)
        assert found.chosen[-1].role == "assistant"
    assert any(len(pairs.load(pairs[key]).rejected) > 1 for key in pairs.keys)


def test_pairs_that_a_run_writes_meanwhile_come_in(out: Path) -> None:
    (path,) = out.glob("preferences/*.parquet")
    rows = pq.read_table(path, partitioning=None).to_pylist()
    pq.write_table(table(Preference, rows[:5]), path)
    pairs = Pairs(out)
    assert len(pairs.keys) == 5
    pq.write_table(table(Preference, rows[5:]), path.with_name("part-00001.parquet"))
    pairs.refresh()
    assert len(pairs.keys) == len(rows) and pairs.load(pairs[list(pairs.keys)[-1]])


def test_a_shard_that_cannot_be_read_is_a_problem_until_it_can_and_stops_no_other(out: Path) -> None:
    (path,) = out.glob("preferences/*.parquet")
    rows = pq.read_table(path, partitioning=None).to_pylist()
    pq.write_table(table(Preference, rows[:5]), path)
    votes(out, *SAID[:2])
    bad = path.with_name("part-00001.parquet")
    bad.write_bytes(b"PAR1 not really PAR1")
    session = Session(Store(store_path(out, whole=False)), Pairs(out), "Dan", judges=2)
    view = session.view()
    assert view["progress"]["left"] == 3 and len(view["problems"]) == 1 and bad.name in view["problems"][0]
    told = CliRunner().invoke(app, ["annotate", str(out)])
    assert told.exit_code == 2 and bad.name in told.output.replace("\n", ""), "figures and an export are of all pairs"
    pq.write_table(table(Preference, rows[5:]), bad)
    view = session.view()
    assert view["progress"]["left"] == len(rows) - 2 and "problems" not in view
    session.store.close()
    for one in (path, bad):
        one.write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(DatasetError, match="that can be read"):
        Pairs(out)


def test_a_run_without_pairs_is_refused_with_how_to_make_some(out: Path) -> None:
    shutil.rmtree(out / "preferences")
    with pytest.raises(DatasetError, match="no preference pairs") as refused:
        Pairs(out)
    assert "--siblings" in str(refused.value) and "--flaws" in str(refused.value)


# --- what people decided ------------------------------------------------------------------------------------

SAID = (
    {"Ada Q.": "chosen", "Ben Q.": "chosen"},
    {"Ada Q.": "rejected", "Ben Q.": "rejected", "Cleo Q.": "chosen"},
    {"Ada Q.": "tie", "Ben Q.": "tie"},
    {"Ada Q.": "chosen", "Ben Q.": "rejected"},
    {"Ada Q.": "skip", "Ben Q.": "chosen"},
    {"Ada Q.": "chosen", "Ben Q.": "tie", "Cleo Q.": "tie"},
)


def test_figures_are_those_of_what_was_said(out: Path) -> None:
    report = report_of(votes(out, *SAID))
    assert report.outcomes == {"chosen": 2, "rejected": 1, "tie": 2, "split": 1}
    assert [round(one.margin, 3) for one in report.votes] == [1.0, 0.333, 0.0, 0.0, 1.0, 0.333]
    assert report.compared == 5
    assert report.depth() == {2: 3, 3: 2, 1: 1, 0: report.pairs - 6}
    ada = report.people["Ada Q."]
    assert (ada.sided, ada.presses["tie"], ada.presses["skip"], ada.with_run) == (4, 1, 1, 3)


def test_agreement_does_not_depend_on_which_message_the_run_prefers(out: Path) -> None:
    """People who always agree with the run agree with each other: that is full agreement, not an undefined one."""
    report = report_of(votes(out, *[{"Ada": "chosen", "Ben": "chosen"}] * 10))
    assert report.alpha == 1.0


def test_a_judgement_of_a_text_that_is_no_longer_there_is_not_counted(out: Path) -> None:
    votes(out, *SAID)
    (path,) = out.glob("preferences/*.parquet")
    rows = pq.read_table(path, partitioning=None).to_pylist()
    for row in rows:
        row["chosen"] = [json.dumps({"role": "assistant", "content": "Something else.", "train": True})]
    pq.write_table(table(Preference, rows), path)
    report = report_of(Pairs(out))
    assert (report.gone, report.votes) == (sum(map(len, SAID)), [])


@pytest.mark.parametrize("whole", [False, True])
def test_an_export_holds_the_decided_pairs_as_people_see_them(out: Path, tmp_path: Path, whole: bool) -> None:
    pairs = votes(out, *SAID, whole=whole)
    run = export(pairs, report_of(pairs), tmp_path / "human", names=False)
    assert run["counts"] == {"preferences": 3, "against_the_run": 1, "ties": 2, "split": 1, "judgements": 14, "skips": 1}
    rows = {row["id"]: row for row in pq.read_table(tmp_path / "human" / "preferences").to_pylist()}
    keys = list(pairs.keys)
    with_run, against = (pairs.load(pairs[keys[at]]).preference for at in (0, 1))
    assert rows[f"{with_run.id}.human"]["chosen"] == [with_run.chosen[0].json_text()]
    turned = rows[f"{against.id}.human"]
    assert (turned["chosen"], turned["rejected"]) == ([against.rejected[0].json_text()], [against.chosen[0].json_text()])
    assert (turned["source"], round(turned["margin"], 3), turned["trace"]) == ("human", 0.333, against.trace)
    assert (tmp_path / "human" / "trajectories").exists() == whole
    assert verify_export(tmp_path / "human", run, report=None) == 0


def test_no_name_is_exported_unless_asked(out: Path, tmp_path: Path) -> None:
    pairs = votes(out, *SAID)
    for names in (False, True):
        export(pairs, report_of(pairs), tmp_path / "human", names=names)
        said = pq.read_table(tmp_path / "human" / "judgements").to_pylist()
        text = json.dumps(said) + "".join((tmp_path / "human" / name).read_text() for name in ("README.md", "run.json"))
        assert ("Ada Q." in text) == names
        assert {row["annotator"] for row in said} == ({"Ada Q.", "Ben Q.", "Cleo Q."} if names else {"1", "2", "3"})


def test_an_export_replaces_an_earlier_one_and_nothing_else(out: Path, tmp_path: Path) -> None:
    pairs = votes(out, *SAID)
    report = report_of(pairs)
    for _ in range(2):
        export(pairs, report, tmp_path / "human", names=False)
    assert len(pq.read_table(tmp_path / "human" / "preferences")) == 3
    with pytest.raises(DatasetError, match="something else"):
        export(pairs, report, out, names=False)
    assert (out / "data").is_dir() and [path.name for path in tmp_path.glob(".*")] == []


def test_an_export_through_a_link_replaces_what_it_leads_to(out: Path, tmp_path: Path) -> None:
    pairs = votes(out, *SAID)
    (tmp_path / "latest").symlink_to(tmp_path / "human")
    for _ in range(2):
        export(pairs, report_of(pairs), tmp_path / "latest", names=False)
    assert (tmp_path / "latest").is_symlink() and (tmp_path / "human" / "run.json").is_file()


def test_where_nothing_is_decided_nothing_is_exported(out: Path, tmp_path: Path) -> None:
    pairs = votes(out, *SAID[2:4])
    with pytest.raises(DatasetError, match="no pair is decided"):
        export(pairs, report_of(pairs), tmp_path / "human", names=False)
    assert not (tmp_path / "human").exists()


@pytest.mark.parametrize(
    ("column", "value", "check"),
    [("margin", 0.9, "margin"), ("source", "siblings", "source"), ("chosen", ["{}"], "role"), ("id", "same", "times")],
)
def test_an_export_that_was_changed_does_not_pass(out: Path, tmp_path: Path, column: str, value: Any, check: str, capsys: Any) -> None:
    pairs = votes(out, *SAID)
    run = export(pairs, report_of(pairs), tmp_path / "human", names=False)
    (path,) = (tmp_path / "human" / "preferences").glob("*.parquet")
    rows = [{**row, column: value} for row in pq.read_table(path, partitioning=None).to_pylist()]
    pq.write_table(table(Preference, rows), path)
    assert verify_export(tmp_path / "human", run, report=None) == 1
    assert check in capsys.readouterr().out


# --- who reads it -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def human(milled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = Path(shutil.copytree(milled, tmp_path_factory.mktemp("human") / "run"))
    pairs = votes(out, *SAID, whole=True)
    export(pairs, report_of(pairs), out.parent / "human", names=False)
    return out.parent / "human"


def test_train_dpo_reads_an_export(human: Path) -> None:
    import tiny

    from tracemill.train.data import Encoder, dpo_dataset
    from tracemill.train.run import revision

    encoder = Encoder(tiny.build_tokenizer(), max_length=16384)
    assert len(dpo_dataset(human, encoder)) == 3 and encoder.report.left_out == {}
    assert revision(human, "dpo")["license"] == "apache-2.0"


@pytest.mark.parametrize("config", ["preferences", "trajectories"])
def test_trl_prepares_an_export_for_its_reward_and_dpo_trainers(human: Path, tmp_path: Path, config: str) -> None:
    import tiny
    from datasets import load_dataset
    from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer  # type: ignore[attr-defined]

    tokenizer = tiny.build_tokenizer()
    tokenizer.chat_template = tiny.CHAT_TEMPLATE
    pairs = load_dataset(str(human), config, split="train", cache_dir=str(tmp_path))
    common: dict[str, Any] = {"output_dir": str(tmp_path), "max_length": None, "report_to": [], "use_cpu": True, "bf16": False}
    reward, dpo = object.__new__(RewardTrainer), object.__new__(DPOTrainer)
    dpo._tokenizer = tokenizer
    rewarded = reward._prepare_dataset(pairs, tokenizer, RewardConfig(**common), "train")
    preferred = dpo._prepare_dataset(pairs, tokenizer, DPOConfig(**common), "train")
    assert len(rewarded) == len(preferred) == 3
    for row, told, asked in zip(pairs, rewarded, preferred, strict=True):
        name = row["tools"][0]["function"]["name"]
        assert name in tokenizer.decode(told["chosen_ids"]) and told["chosen_ids"] != told["rejected_ids"]
        assert asked["prompt_ids"] + asked["chosen_ids"] == told["chosen_ids"]
    assert sorted(rewarded["margin"]) == pytest.approx([1 / 3, 1, 1])


def test_judgements_are_no_part_of_the_run_and_outlive_its_continuation(out: Path, tmp_path: Path) -> None:
    from datasets import load_dataset

    votes(out, *SAID)
    kept = (out / ".annotations" / "messages.sqlite").read_bytes()
    assert verify(out, workers=1) == 0
    assert len(load_dataset(str(out), split="train", cache_dir=str(tmp_path))) == 60
    mill(out, accept=60, environments=["store", "bank"], flaws=0.3)
    assert (out / ".annotations" / "messages.sqlite").read_bytes() == kept
    assert sum(one.counts.total() for one in report_of(Pairs(out)).votes) == 13


# --- command and server -------------------------------------------------------------------------------------


def test_the_command_shows_progress_and_exports(out: Path, tmp_path: Path) -> None:
    def told(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["annotate", str(out), *arguments])
        return done.exit_code, " ".join(done.output.split())

    code, text = told()
    assert code == 2 and "nobody has judged" in text
    votes(out, *SAID)
    code, text = told()
    assert code == 0 and "Ada Q." in text and "over 5 pairs" in text and "67% of 3 decided pairs" in text
    code, text = told("--export", str(tmp_path / "human"))
    assert code == 0 and "3 preference pairs, 1 of them against" in text
    assert told("--export", str(tmp_path / "other"), "--name", "Ada")[0] == 2


async def test_the_server_takes_json_with_its_key_and_of_the_right_shape(out: Path) -> None:
    store = await asyncio.to_thread(lambda: store_path(out, whole=False))
    session = Session(Store(store), Pairs(out), "Ada", judges=2)
    app = pages(session)
    key = {"Authorization": f"Bearer {app[TOKEN]}"}
    async with TestClient(TestServer(app, host="127.0.0.1")) as client:
        assert (await client.get("/api/next")).status == 401
        view = await (await client.get("/api/next", headers=key)).json()
        act = {"ticket": view["ticket"], "press": "left", "reasons": [], "note": ""}
        assert (await client.post("/api/judge", json=act)).status == 401
        assert (await client.post("/api/judge", data=act, headers=key)).status == 415
        assert (await client.post("/api/judge", data="{", headers={**key, "Content-Type": "application/json"})).status == 400
        assert (await client.get("/api/judge", headers=key)).status in (404, 405)
        for wrong in ({"press": "up"}, {"ticket": "1"}, {"note": "x" * 4001}, {"more": 1}):
            assert (await client.post("/api/judge", json={**act, **wrong}, headers=key)).status == 422
        assert (await client.post("/api/judge", json={**act, "ticket": 99}, headers=key)).status == 409
        assert list(session.store.judgements()) == []
        done = await client.post("/api/judge", json=act, headers=key)
        following = await done.json()
        assert done.status == 200 and following["ticket"] != view["ticket"] and following["progress"]["judged"] == 1
        assert (await client.post("/api/judge", json=act, headers=key)).status == 409
        back = await (await client.post("/api/undo", json={"act": following["progress"]["last"]["act"]}, headers=key)).json()
        assert back["ticket"] == view["ticket"]
    session.store.close()


async def test_a_judgement_that_cannot_be_saved_is_said_to_be_lost(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracemill.annotating.store.PATIENCE", 0.05)
    session = Session(Store(store_path(out, whole=False)), Pairs(out), "Ada", judges=2)
    app = pages(session)
    key = {"Authorization": f"Bearer {app[TOKEN]}"}
    async with TestClient(TestServer(app, host="127.0.0.1")) as client:
        view = await (await client.get("/api/next", headers=key)).json()
        with closing(sqlite3.connect(session.store.path, isolation_level=None)) as busy:
            busy.execute("BEGIN IMMEDIATE")
            answer = await client.post("/api/judge", json={"ticket": view["ticket"], "press": "left"}, headers=key)
            assert answer.status == 503 and "not saved" in (await answer.json())["error"]
    session.store.close()


async def test_what_fails_after_a_judgement_was_saved_is_not_told_as_lost(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(Store(store_path(out, whole=False)), Pairs(out), "Ada", judges=2)
    app = pages(session)
    key = {"Authorization": f"Bearer {app[TOKEN]}"}

    def fail(self: Session) -> Json:
        raise sqlite3.OperationalError("disk I/O error")

    async with TestClient(TestServer(app, host="127.0.0.1")) as client:
        view = await (await client.get("/api/next", headers=key)).json()
        monkeypatch.setattr(Session, "view", fail)
        answer = await client.post("/api/judge", json={"ticket": view["ticket"], "press": "left"}, headers=key)
        told = await answer.json()
        assert told["trouble"].startswith("Saved.") and "disk I/O error" in told["trouble"]
        following = await client.get("/api/next", headers=key)
        assert following.status == 503 and "not saved" not in await following.text()
    assert [one.press for one in session.store.judgements()] == ["left"]
    session.store.close()


def test_a_pair_whose_files_are_broken_can_be_passed_over(out: Path) -> None:
    for path in out.glob("preferences/*.parquet"):
        rows = pq.read_table(path, partitioning=None)
        broken = rows.set_column(rows.schema.get_field_index("prompt"), "prompt", pa.array([["{"]] * len(rows)))
        pq.write_table(broken, path)
    session = Session(Store(store_path(out, whole=False)), Pairs(out), "Ada", judges=2)
    view = session.view()
    assert "cannot be read" in view["broken"] and "left" not in view
    session.judge(view["ticket"], "skip", [], "")
    assert session.view()["ticket"] != view["ticket"]
    session.store.close()
