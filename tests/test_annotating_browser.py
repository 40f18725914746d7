"""The page of `tracemill annotate` in a real Chromium: the whole job by keyboard, two windows, hostile texts, no hint of a label."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest
from aiohttp import web
from browser import NARROW, chromium, page, served, unreachable, window

from tracemill.annotating.pairs import Pairs
from tracemill.annotating.server import pages
from tracemill.annotating.session import Session
from tracemill.annotating.store import Judgement, Store, store_path
from tracemill.columns import Row, table
from tracemill.trace import Preference

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

__all__ = ["chromium", "page"]  # fixtures
NUMBER = 5
EVIL = "<img src=x onerror=\"window.hacked='img'\"><script>window.hacked='script'</script>{{7*7}} \u202eevil </textarea></section>"

HASTY = """() => new MutationObserver(() => {
    const press = () => {
        document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft", bubbles: true }));
        main.dataset.hasty = "pressed";
    };
    if (main.dataset.state === "settling") setTimeout(press, 50);
}).observe(main, { attributes: true, attributeFilter: ["data-state"] })"""
"""A second press, right after each new pair."""


@pytest.fixture
def out(milled: Path, tmp_path: Path) -> Path:
    """A run with five pairs."""
    out = Path(shutil.copytree(milled, tmp_path / "run"))
    rewrite(out, lambda row: None)
    return out


def rewrite(out: Path, change: Callable[[Row], None]) -> list[Row]:
    rows = pairs_of(out)[:NUMBER]
    for row in rows:
        change(row)
    for path in out.glob("preferences/*.parquet"):
        path.unlink()
    pq.write_table(table(Preference, rows), out / "preferences" / "part-00000.parquet")
    return rows


def pairs_of(out: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(out / "preferences").to_pylist()
    return rows


@contextmanager
def annotating(out: Path, name: str = "Ada", *, whole: bool = False, judges: int = 2) -> Iterator[str]:
    """The address of the page."""

    def make() -> web.Application:
        store = Store(store_path(out, whole=whole))
        app = pages(Session(store, Pairs(out, whole=whole), name, judges))

        async def close(_: web.Application) -> None:
            store.close()

        app.on_cleanup.append(close)
        return app

    with served(make) as address:
        yield address


def begin(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("main[data-state=ready]")


def press(page: Page, key: str) -> None:
    """Press a key that judges, and wait for what comes next."""
    before = page.get_attribute("main", "data-ticket")
    page.keyboard.press(key)
    page.wait_for_function(
        "before => main.dataset.ticket !== before && ['ready', 'end'].includes(main.dataset.state)", arg=before
    )  # fmt: skip


def kept(out: Path) -> list[Judgement]:
    store = Store(store_path(out, whole=False))
    found = list(store.judgements())
    store.close()
    return found


def sides(page: Page) -> tuple[str, str]:
    return page.inner_text("#left"), page.inner_text("#right")


def status(page: Page) -> str:
    return page.inner_text("#status")


def test_the_whole_job_is_done_by_keyboard_alone(page: Page, out: Path) -> None:
    with annotating(out) as address:
        begin(page, address)
        assert "0 judged · 5 to do" in page.inner_text("#progress") and "Ada" in page.inner_text("#progress")
        press(page, "ArrowLeft")
        assert "Saved: left" in status(page)
        press(page, "ArrowRight")
        page.keyboard.press("1")
        page.keyboard.press("5")
        page.keyboard.press("1")  # off again
        page.keyboard.press("r")
        page.keyboard.type("stays s u 2 within the text")
        page.keyboard.press("Enter")
        press(page, "ArrowDown")
        assert page.input_value("#note") == "" and page.locator("#why [aria-pressed=true]").count() == 0, "a reason is for one pair"
        press(page, "t")
        press(page, "s")
        assert page.inner_text("#question") == "All done"
        assert "4 judged · 0 to do · 1 skipped" in page.inner_text("#progress")
    found = kept(out)
    assert [one.press for one in found] == ["left", "right", "tie", "tie", "skip"]
    assert [(one.reasons, one.note) for one in found[2:4]] == [(("clearer",), "stays s u 2 within the text"), ((), "")]


def test_what_was_shown_left_is_what_is_kept(page: Page, out: Path) -> None:
    """Each pair gets one candidate with a word in it: whoever presses the side where it stands prefers that message."""

    def mark(row: Row) -> None:
        message = json.loads(row["rejected"][0])
        row["rejected"] = [json.dumps({**message, "content": "The marked one."})]

    rewrite(out, mark)
    with annotating(out) as address:
        begin(page, address)
        for _ in range(NUMBER):
            press(page, "ArrowLeft" if "The marked one." in sides(page)[0] else "ArrowRight")
    pairs, found = Pairs(out), kept(out)
    assert len(found) == NUMBER and all(one.choice != pairs[one.pair].chosen for one in found)


def test_undo_brings_back_pair_side_and_reason_even_from_the_end(page: Page, out: Path) -> None:
    with annotating(out) as address:
        begin(page, address)
        page.keyboard.press("u")  # nothing to take back yet
        for _ in range(NUMBER - 1):
            press(page, "s")
        shown = sides(page)
        page.keyboard.press("2")
        press(page, "ArrowLeft")
        assert page.get_attribute("main", "data-state") == "end"
        press(page, "u")
        assert sides(page) == shown and "Taken back" in status(page)
        assert page.locator("#why [aria-pressed=true]").inner_text().endswith("keeps to the policy")
        press(page, "ArrowRight")
    assert [one.press for one in kept(out)] == ["skip"] * 4 + ["right"]


def test_a_reload_shows_the_same_pair_on_the_same_sides(page: Page, out: Path) -> None:
    with annotating(out) as address:
        begin(page, address)
        press(page, "ArrowLeft")
        shown, ticket = sides(page), page.get_attribute("main", "data-ticket")
        page.reload()
        page.wait_for_selector("main[data-state=ready]")
        assert (sides(page), page.get_attribute("main", "data-ticket")) == (shown, ticket)
    with annotating(out) as address:  # the program was started again
        begin(page, address)
        assert (sides(page), page.get_attribute("main", "data-ticket")) == (shown, ticket)


def test_two_windows_of_one_person_judge_no_pair_twice(page: Page, chromium: Browser, out: Path) -> None:
    with annotating(out) as address, window(chromium) as second:
        begin(page, address)
        begin(second, address)
        assert sides(page) == sides(second)
        press(page, "ArrowLeft")
        press(second, "ArrowRight")
        assert "already, in another window" in status(second) and sides(second) == sides(page)
        press(page, "ArrowLeft")
        press(second, "u")  # it knows of the first judgement only
        assert "went on in another window" in status(second)
    assert [one.press for one in kept(out)] == ["left", "left"]


def test_two_people_have_each_their_own_queue(page: Page, chromium: Browser, out: Path) -> None:
    with annotating(out, "Ada") as address, annotating(out, "Ben") as other, window(chromium) as second:
        begin(page, address)
        begin(second, other)
        for _ in range(2):
            assert sorted(text.split("\n", 1)[1] for text in sides(page)) == sorted(text.split("\n", 1)[1] for text in sides(second))
            press(page, "ArrowLeft")
            press(second, "ArrowLeft")
    assert sorted((one.annotator, one.press) for one in kept(out)) == [("Ada", "left")] * 2 + [("Ben", "left")] * 2


@pytest.mark.parametrize("whole", [False, True])
def test_nothing_in_page_or_answers_tells_what_the_run_prefers(page: Page, out: Path, whole: bool) -> None:
    bodies: list[str] = []
    page.on("response", lambda response: bodies.append(response.text()) if "/api/" in response.url else None)
    with annotating(out, whole=whole) as address:
        begin(page, address)
        for _ in range(NUMBER - 1):
            press(page, "ArrowLeft")
            bodies.append(page.content())
    text = "\n".join(bodies)
    for row in pairs_of(out):
        assert row["id"] not in text and row["trace"] not in text and row["source"] not in text
    assert '"chosen"' not in text and '"rejected"' not in text and "masked" not in text and "not trained" not in text


def test_what_a_model_wrote_is_shown_and_never_run(page: Page, out: Path) -> None:
    def poison(row: Row) -> None:
        row["prompt"] = [json.dumps({"role": "system", "content": EVIL}), json.dumps({"role": "user", "content": EVIL})]
        call = {"id": EVIL, "type": "function", "function": {"name": EVIL, "arguments": {EVIL: EVIL}}}
        for side in ("chosen", "rejected"):
            said = {"role": "assistant", "content": side + EVIL, "reasoning_content": EVIL, "tool_calls": [call], "train": True}
            row[side] = [json.dumps(said)]
        row["tools"] = [json.dumps({"type": "function", "function": {"name": EVIL, "description": EVIL, "parameters": {}}})]

    rewrite(out, poison)
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    with annotating(out, name=f"<b>Ada</b> {'x' * 20}") as address:
        begin(page, address)
        page.keyboard.press("o")
        page.keyboard.press("o")
        press(page, "ArrowLeft")
        assert page.evaluate("window.hacked") is None
        assert page.locator("main img, main script, #progress b").count() == 0
        assert page.locator("#left").inner_text().count("<img src=x onerror=") >= 3
        assert page.locator("#left .unseen").count() >= 3 and "\u202e" not in page.inner_text("main")


def test_a_key_that_is_held_or_pressed_in_haste_judges_one_pair(page: Page, out: Path) -> None:
    with annotating(out) as address:
        begin(page, address)
        page.evaluate(HASTY)
        before = page.get_attribute("main", "data-ticket")
        page.keyboard.down("ArrowRight")
        page.wait_for_function("before => main.dataset.ticket !== before && main.dataset.state === 'ready'", arg=before)
        page.keyboard.down("ArrowRight")  # held still, when the next pair is there
        page.keyboard.up("ArrowRight")
        page.keyboard.press("Control+s")
        page.wait_for_selector("main[data-hasty][data-state=ready]")
    assert [one.press for one in kept(out)] == ["right"]


def test_arrows_scroll_where_something_scrolls_and_letters_are_text_where_one_writes(page: Page, out: Path) -> None:
    with annotating(out) as address:
        begin(page, address)
        for place in ("#shared", "#left", "#right"):
            page.focus(place)
            page.keyboard.press("ArrowDown")
            page.keyboard.press("ArrowLeft")
        page.focus("#note")
        for key in ("t", "s", "u", "ArrowLeft", "1"):
            page.keyboard.press(key)
        assert page.input_value("#note") == "ts1u" and page.get_attribute("main", "data-state") == "ready"
        page.keyboard.press("Escape")
        press(page, "ArrowLeft")
    assert [(one.press, one.note) for one in kept(out)] == [("left", "ts1u")]


def test_when_the_server_is_gone_it_is_said_and_nothing_is_taken_for_saved(chromium: Browser, out: Path) -> None:
    with window(chromium) as page:
        with annotating(out) as address:
            begin(page, address)
            shown = sides(page)
        page.keyboard.press("r")
        page.keyboard.type("kept")
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector("#status.error")
        assert "does not answer" in status(page) and sides(page) == shown and page.input_value("#note") == "kept"
    assert kept(out) == []


def test_from_every_failure_a_key_leads_on(chromium: Browser, out: Path) -> None:
    """The first load fails, the program was started again, a shard and a pair are spoiled."""

    def large(row: Row) -> None:
        call = {
            "id": "a",
            "type": "function",
            "function": {"name": "update_plan", "arguments": {"revision": 10**19, "subgoals": [{"id": "a"}]}},
        }
        row["chosen"] = [json.dumps({"role": "assistant", "content": "", "tool_calls": [call], "train": True})]

    rewrite(out, large)
    # A window of its own, not the fixture: the browser logs what fails.
    with window(chromium) as page, annotating(out) as address:
        page.route("**/api/next", lambda route: route.abort())
        page.goto(address)
        page.wait_for_selector("main[data-state=again]")
        assert "does not answer" in status(page)
        page.unroute("**/api/next")
        page.keyboard.press("Enter")
        page.wait_for_selector("main[data-state=ready]")
        assert "revision 10000000000000000000" in page.inner_text("#sides")

        page.evaluate("localStorage.setItem('tracemill-token', 'old')")
        page.keyboard.press("s")
        page.wait_for_selector("#status.error")
        assert page.get_attribute("main", "data-state") == "ready"
        page.goto(address)
        page.wait_for_selector("#status:not(.error)")
        page.wait_for_selector("main[data-state=ready]")

        (out / "preferences" / "part-00001.parquet").write_bytes(b"PAR1 not really PAR1")
        press(page, "ArrowLeft")
        assert "Saved: left" in status(page) and "part-00001.parquet" in page.inner_text("#problems")

        page.route("**/api/judge", spoiled)
        press(page, "ArrowRight")
        page.unroute("**/api/judge")
        assert page.inner_text("#question") == "This pair cannot be shown" and "Saved: right" in status(page)
        page.keyboard.press("ArrowLeft")
        press(page, "s")
        assert page.inner_text("#question") == "Which next message is better?"
    assert [one.press for one in kept(out)] == ["left", "right", "skip"]


def spoiled(route: Route) -> None:
    """Answers with a pair that the page cannot draw."""
    answer = route.fetch()
    route.fulfill(response=answer, json={**answer.json(), "left": [None]})


def test_a_click_into_a_candidate_and_the_composing_of_a_word_mean_no_more_than_that(page: Page, out: Path) -> None:
    with annotating(out) as address:
        begin(page, address)
        page.focus("#left")
        page.keyboard.press("ArrowLeft")
        assert "Arrows scroll here" in status(page) and page.get_attribute("main", "data-state") == "ready"
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.id") == "question"
        page.click("#left .said")
        press(page, "ArrowLeft")
        page.focus("#note")
        page.evaluate(
            "note.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', isComposing: true, bubbles: true, cancelable: true }))"
        )
        assert page.evaluate("document.activeElement.id") == "note"
    assert [one.press for one in kept(out)] == ["left"]


def test_a_failure_is_seen_however_far_a_narrow_page_was_scrolled_and_caps_lock_does_no_harm(chromium: Browser, out: Path) -> None:
    context = chromium.new_context(viewport=NARROW)  # type: ignore[arg-type]
    page = context.new_page()  # not the fixture: the browser logs what fails
    with annotating(out) as address:
        begin(page, address)
        press(page, "T")
        assert "a tie" in status(page)
        page.set_viewport_size({"width": 390, "height": 300})
        page.route("**/api/judge", lambda route: route.abort())
        page.evaluate("scrollTo(0, document.body.scrollHeight)")
        assert page.evaluate("document.getElementById('status').getBoundingClientRect().bottom") < 0
        page.keyboard.press("S")
        page.wait_for_selector("#status.error")
        assert -1 < page.evaluate("document.getElementById('status').getBoundingClientRect().top") < 300
    context.close()


def test_who_unfolds_a_long_text_by_key_reads_on_and_judges_nothing(page: Page, out: Path) -> None:
    def lengthen(row: Row) -> None:
        row["chosen"], row["rejected"] = (
            [json.dumps({"role": "assistant", "content": word + " and on" * 5000, "train": True})] for word in ("on", "off")
        )

    rewrite(out, lengthen)
    with annotating(out) as address:
        begin(page, address)
        page.locator("#left .more").press("Enter")
        page.keyboard.press("ArrowDown")
        assert "Arrows scroll here" in status(page) and page.get_attribute("main", "data-state") == "ready"
    assert kept(out) == []


def test_keys_are_told_on_a_page_at_twice_its_size(page: Page, out: Path) -> None:
    page.set_viewport_size({"width": 700, "height": 450})
    with annotating(out) as address:
        begin(page, address)
        for key in ("[data-press=left]", "[data-press=tie]", "[data-press=right]", "[data-press=skip]", "#undo", "#why label"):
            assert page.is_visible(f"{key} kbd")
        assert page.evaluate("document.documentElement.scrollWidth") <= 700


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_page_holds_everything_and_every_control_is_reached_by_tab(chromium: Browser, out: Path, scheme: Any) -> None:
    with window(chromium, viewport=NARROW, color_scheme=scheme) as page, annotating(out, whole=True) as address:
        begin(page, address)
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
        assert page.locator("#left").bounding_box()["y"] < page.locator("#right").bounding_box()["y"]  # type: ignore[index]
        assert unreachable(page) == set()
        page.click("[data-press=left]")
        page.wait_for_selector("#undo:not([disabled])")
