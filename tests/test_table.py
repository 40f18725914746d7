"""Tables: a base that is shared, and each rollout's own changes on top."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracemill.generators.environments.base import Base, Row, Table, ToolError


@dataclass(frozen=True)
class Note(Row):
    id: str
    folder: str
    pages: int
    text: str = ""
    volatile: ClassVar[tuple[str, ...]] = ("text",)


def base(*notes: Note) -> Base[Note]:
    return Base({note.id: note for note in notes})


A, B, C = Note("N-1", "home", 3), Note("N-2", "work", 5), Note("N-3", "home", 5)


def table() -> Table[Note]:
    return Table("notes", base(A, B, C))


def test_two_tables_on_one_base_do_not_see_each_other() -> None:
    shared = base(A, B, C)
    mine, yours = Table("notes", shared), Table("notes", shared)
    mine.update(A, pages=9)
    mine.remove("N-2")
    mine.put(Note("N-4", "home", 1))
    assert [note.id for note in yours] == ["N-1", "N-2", "N-3"]
    assert yours["N-1"].pages == 3
    assert yours.difference() == {}
    assert [note.pages for note in mine] == [9, 5, 1]
    assert [note.id for note in Table("notes", shared)] == ["N-1", "N-2", "N-3"]


def test_a_row_is_found_by_its_id_and_a_missing_one_is_a_tool_error() -> None:
    notes = table()
    assert notes["N-2"] is B
    assert notes.get("N-9") is None
    assert "N-2" in notes and "N-9" not in notes and 2 not in notes
    with pytest.raises(ToolError) as caught:
        notes["N-9"]
    assert (caught.value.code, caught.value.message) == ("not_found", "no note with id 'N-9'")
    notes.remove("N-2")
    assert "N-2" not in notes
    with pytest.raises(ToolError):
        notes["N-2"]


def test_where_sees_changed_new_and_removed_rows_in_the_tables_order() -> None:
    notes = table()
    assert notes.where(folder="home") == [A, C]
    assert notes.where(folder="home", pages=5) == [C]
    moved = notes.update(A, folder="work")
    new = notes.put(Note("N-0", "work", 1))
    assert notes.where(folder="home") == [C]
    assert notes.where(folder="work") == [moved, B, new]
    notes.remove("N-2")
    assert notes.where(folder="work") == [moved, new]
    assert notes.where(folder="attic") == []
    assert table().where(folder="attic") == []


def test_an_index_made_by_one_rollout_does_not_hide_the_changes_of_another() -> None:
    shared = base(A, B, C)
    assert len(Table("notes", shared).where(folder="home")) == 2
    changed = Table("notes", shared)
    changed.update(C, folder="work")
    assert changed.where(folder="home") == [A]
    assert Table("notes", shared).where(folder="home") == [A, C]


def test_the_next_id_is_above_every_id_ever_used() -> None:
    notes = table()
    assert notes.next_id("N-") == "N-4"
    notes.put(Note("N-7", "home", 1))
    notes.remove("N-7")
    assert notes.next_id("N-") == "N-8", "an id that was removed must not come back as another row"
    assert notes.next_id("M-") == "M-1"
    assert notes.next_id("M-", 100) == "M-100"
    assert notes.next_id("N-", 5) == "N-8"
    notes.put(Note("N-x9", "home", 1))
    assert notes.next_id("N-") == "N-8"


def test_the_difference_leaves_out_volatile_fields_and_changes_that_were_taken_back() -> None:
    notes = table()
    notes.update(A, text="scribbled")
    notes.update(B, pages=6)
    notes.update(notes["N-2"], pages=5)
    assert notes.difference() == {}
    gone = notes.put(Note("N-4", "home", 1))
    notes.remove(gone.id)
    assert notes.difference() == {}, "a row that came and went is no difference"
    notes.remove("N-3")
    changed = notes.update(A, pages=4)
    assert notes.difference() == {"N-1": changed, "N-3": None}


def test_a_frozen_table_is_the_base_of_a_new_one() -> None:
    notes = table()
    notes.update(A, pages=9)
    notes.remove("N-2")
    again = Table("notes", notes.freeze())
    assert [(note.id, note.pages) for note in again] == [("N-1", 9), ("N-3", 5)]
    assert again.difference() == {}


KEYS = st.sampled_from([f"N-{number}" for number in range(6)])
MOVES = st.lists(
    st.tuples(st.sampled_from(["put", "remove"]), KEYS, st.sampled_from(["home", "work"]), st.integers(0, 3)),
    max_size=12,
)


@given(start=st.lists(KEYS, unique=True), moves=MOVES)
@settings(max_examples=150)
def test_a_table_behaves_as_a_plain_dict_would(start: list[str], moves: list[tuple[str, str, str, int]]) -> None:
    first = {key: Note(key, "home", 0) for key in start}
    model, notes = dict(first), Table("notes", Base(dict(first)))
    for move, key, folder, pages in moves:
        if move == "put":
            model[key] = notes.put(Note(key, folder, pages))
        else:
            model.pop(key, None)
            notes.remove(key)
    assert {note.id: note for note in notes} == model
    assert len(notes) == len(model)
    assert all((key in notes) == (key in model) and notes.get(key) == model.get(key) for key in (*start, *model))
    for folder in ("home", "work"):
        assert notes.where(folder=folder) == [note for note in notes if note.folder == folder]
    kept = {key: note for key, note in model.items() if first.get(key) != note}
    assert notes.difference() == {**kept, **{key: None for key in first if key not in model}}
    assert [dataclasses.replace(note) for note in first.values()] == list(Table("notes", Base(first)))
