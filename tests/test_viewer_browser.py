"""The page of `tracemill view` in a real Chromium: reading, keys, layouts, and content that would like to be more than text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browser import NARROW, WIDE, chromium, page, served, unreachable, until, window

from tracemill.columns import Row
from tracemill.viewer.api import viewer
from tracemill.viewer.index import Index

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["chromium", "page"]  # fixtures

HOSTILE = (
    "<script>window.owned = 1</script><img src=x onerror='window.owned = 2'><svg onload='window.owned = 3'></svg>"
    "<a href='javascript:window.owned = 4'>click</a> \u202egnissecorp \u2066hidden\u2069 \u200bzero \U000e0041tag \x1b[31m {{7*7}} </textarea>"
)


@pytest.fixture(scope="module")
def address(milled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with viewing(milled, tmp_path_factory.mktemp("index") / "index.sqlite") as found:
        yield found


@contextmanager
def viewing(out: Path, index: Path) -> Iterator[str]:
    """The address of the page, with everything indexed before: no list grows while a test reads it."""
    Index(out, index).update()
    with served(lambda: viewer(out, index)) as found:
        yield found


def opened(page: Page, address: str, state: str = "") -> None:
    """Open the page with this state, and wait until its list stands."""
    page.goto(f"{address}&{state}" if state else address)
    page.wait_for_selector(".row .title")
    until(page, "document.getElementById('progress').textContent === ''")


def shown(page: Page) -> str:
    return page.inner_text("#reader h2")


def test_the_list_and_the_first_trace_are_shown_and_the_token_leaves_the_address(page: Page, address: str) -> None:
    opened(page, address)
    assert page.inner_text("#found").startswith("60 traces")
    page.wait_for_selector("#reader .message.assistant")
    assert "token" not in page.url and "record=tm-" in page.url
    assert "run" in page.title()


def test_a_link_to_a_trace_opens_it_in_another_tab(page: Page, address: str) -> None:
    opened(page, address)
    page.keyboard.press("j")
    until(page, "document.querySelectorAll('.row')[1].getAttribute('aria-selected') === 'true'")
    page.wait_for_selector("#reader h2")
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("#reader h2")
    assert shown(other) == page.url.partition("record=")[2]
    other.wait_for_selector(".row[aria-selected=true]")


def test_without_the_token_the_page_says_what_to_do(chromium: Browser, address: str) -> None:
    with window(chromium) as page:  # not the fixture: the browser logs the refusal
        page.goto(address.partition("#")[0])
        page.wait_for_selector("#problems .error")
        assert "open the address that the terminal shows" in page.inner_text("#problems")


def test_calls_results_and_thoughts_are_folded_and_unfold(page: Page, address: str) -> None:
    opened(page, address, "part=traces&kind=tool_call")
    page.wait_for_selector("#reader .fold.call")
    assert page.locator("#reader .fold[open]").count() == 0
    page.locator("#reader .fold.result > summary").first.click()
    page.wait_for_selector("#reader .fold.result[open] pre")
    page.locator("#reader .fold.call > summary").first.press("Enter")
    assert '"' in page.inner_text("#reader .fold.call[open] pre.json")
    page.keyboard.press("e")
    until(page, "[...document.querySelectorAll('#reader .conversation details')].every(one => one.open)")


def test_a_plan_is_drawn_as_a_graph_with_its_dependencies(page: Page, address: str) -> None:
    opened(page, address, "part=traces&kind=goal_decomposition")
    page.wait_for_selector("#reader svg.dag")
    drawn = page.locator("#reader svg.dag").first
    assert drawn.locator("g.goal").count() >= 2
    assert drawn.locator("path.edge").count() >= 1
    assert "after g1" in (drawn.get_attribute("aria-label") or "")


def test_circles_strangers_and_nonsense_in_a_plan_do_no_harm(page: Page, address: str) -> None:
    opened(page, address)
    told = page.evaluate("""async () => {
        const { renderPlan } = await import('./plan.js');
        const plans = [{subgoals: [{id: 'a', goal: 'x', depends_on: ['b']}, {id: 'b', goal: 'y', depends_on: ['a', 'zz']}]},
            {subgoals: [null, 3, 'text', [], {id: {}, goal: [1], depends_on: 'a'}], goal: 7, constraints: 'no'}, {subgoals: []},
            {subgoals: [{id: 'a', goal: 'once'}, {id: 'a', goal: 'twice', depends_on: ['a']}]}];
        return plans.map(plan => renderPlan(plan).querySelectorAll('g.goal').length);
    }""")
    assert told == [2, 5, 0, 2]


def test_large_numbers_and_texts_are_shown_cut_searched_and_unfolded(page: Page, address: str) -> None:
    opened(page, address)
    told = page.evaluate(r"""async () => {
        const { renderMessages, renderJson, longText } = await import('./conversation.js');
        const { parse, said } = await import('./dom.js');
        const call = (name, given) => ({ role: 'assistant', content: '', tool_calls: [{ function: { name, arguments: given } }] });
        const result = (content) => ({ role: 'tool', content });
        const shown = (messages, options) => renderMessages(messages, options);
        const all = (box) => { for (const one of box.querySelectorAll('.more')) one.click(); return box.textContent; };
        const big = '12345678901234567890';
        const escaped = JSON.stringify({ body: 'a "\n'.repeat(2_500_000), end: 1 });
        const found = { find: /needle/giu, openFound: true };
        const marked = [result('a line\n'.repeat(5000) + 'needle'), result(JSON.stringify({ body: 'x'.repeat(5000) + ' needle' })),
            result(JSON.stringify([...Array(100).keys(), 'needle'])), result('x '.repeat(749) + 'needle ' + 'x '.repeat(999)),
            result({ body: 'needle' }), result('nothing')].map((one) => shown([one], found));
        return {
            big: [parse(`{"revision":${big},"subgoals":[{"id":${big},"goal":"x"}]}`)].map((given) => shown([call('update_plan', given)]).textContent)[0],
            error: shown([result(`{"error":{"code":${big},"message":{"toString":1}}}`), { role: parse(big), content: parse(big) }]).textContent,
            marks: marked.map((box) => box.querySelectorAll('.fold[open] > :not(summary) mark').length),
            array: all(renderJson(JSON.stringify(Array(150_000).fill(7)))).split('7').length,
            marksOfAll: (() => { const box = longText('needle '.repeat(150_000), found); all(box); return box.querySelectorAll('mark').length; })(),
            unseen: said('\u200b'.repeat(150_000)).length,
            cut: renderJson(escaped).textContent.length,
            whole: all(renderJson(escaped)).length - escaped.length,
        };
    }""")
    assert " revision 12345678901234567890" in told["big"] and "12345678901234567890: x" in told["big"]
    assert '12345678901234567890: {"toString":1}' in told["error"]
    assert told["marks"] == [1, 1, 1, 1, 1, 0]
    assert told["array"] == 150_001 and told["marksOfAll"] == told["unseen"] == 150_000
    assert told["cut"] < 2000 and 0 < told["whole"] < 100


def test_a_new_address_in_the_same_tab_brings_a_dead_page_back_and_polls_leave_the_focus(chromium: Browser, address: str) -> None:
    with window(chromium, viewport=WIDE) as page:  # not the fixture: the browser logs the refusal
        page.clock.install()
        page.goto(f"{address.partition('#')[0]}#token=old")
        page.wait_for_selector("#problems .error")
        page.goto(address)
        page.wait_for_selector(".row .title")
        until(page, "document.getElementById('problems').textContent === ''")
        page.focus("#tabs [data-part=rejects]")
        page.evaluate(
            "window.asked = 0; window.fetch = new Proxy(fetch, { apply: (...given) => (window.asked++, Reflect.apply(...given)) })"
        )
        page.clock.run_for(20_000)
        until(page, "window.asked > 1")
        assert page.evaluate("document.activeElement.dataset.part") == "rejects"


def test_faults_masked_steps_and_the_recovery_are_marked(page: Page, address: str) -> None:
    opened(page, address, "part=traces&kind=error_recovery&flag=masked")
    page.wait_for_selector("#reader .message.masked")
    assert "wrong step, not trained" in page.inner_text("#reader .message.masked")
    assert page.locator("#reader .mark.good", has_text="recovery").count() >= 1
    opened(page, address, "part=traces&kind=error_recovery&flag=fault")
    page.reload()
    page.wait_for_selector("#reader .message.tool .mark.warn, #reader .message .mark.warn")


def test_a_verdict_stands_beside_the_message_it_speaks_of(page: Page, address: str, milled: Path) -> None:
    opened(page, address, "part=rejects&stage=constitution")
    page.wait_for_selector("#reader .message .notes")
    note, head = page.locator("#reader .message .notes").first, page.locator("#reader .message:has(.notes) .body").first
    assert note.bounding_box()["x"] > head.bounding_box()["x"] + 200  # type: ignore[index]
    assert "failed at constitution" in page.inner_text("#reader .about")


def test_a_pair_is_shown_side_by_side(page: Page, address: str) -> None:
    opened(page, address, "part=preferences")
    page.wait_for_selector("#reader .pair")
    chosen, rejected = (page.locator(f"#reader .side.{tone}").bounding_box() for tone in ("good", "bad"))
    assert chosen and rejected and chosen["y"] == rejected["y"] and chosen["x"] < rejected["x"]


def test_filters_narrow_the_list_and_back_widens_it(page: Page, address: str) -> None:
    opened(page, address)
    page.keyboard.press("f")
    page.select_option("#facet-kind", "tool_call")
    until(page, "document.getElementById('found').textContent.startsWith('20 of 60')")
    page.click("#flag-revised")
    page.wait_for_selector("#flag-revised[aria-pressed=true]")
    page.go_back()
    page.wait_for_selector("#flag-revised[aria-pressed=false]")
    page.go_back()
    until(page, "document.getElementById('found').textContent.startsWith('60 traces')")


def test_a_search_finds_marks_and_unfolds_what_it_found(page: Page, address: str) -> None:
    opened(page, address)
    page.keyboard.press("/")
    page.keyboard.type("refund")
    page.keyboard.press("Enter")
    until(page, "/ of 60/.test(document.getElementById('found').textContent)")
    page.wait_for_selector("#reader mark")
    assert page.locator("#reader mark").first.inner_text().lower() == "refund"
    page.fill("#query", "nothingofthekind")
    page.wait_for_selector("#list-state:not([hidden])")
    assert "Nothing passes" in page.inner_text("#list-state")


def test_charts_are_drawn_and_lead_to_what_they_count(page: Page, address: str) -> None:
    opened(page, address)
    page.keyboard.press("4")
    page.wait_for_selector("#charts .plot")
    assert "60" in page.inner_text(".tiles")
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight"), "the charts scroll, not the page"
    page.click("#charts a >> text=bank")
    page.wait_for_selector(".row .where >> text=bank")
    assert "environment=bank" in page.url


def test_everything_is_done_by_keyboard_alone(page: Page, address: str) -> None:
    opened(page, address)
    page.wait_for_selector("#reader h2")
    first = shown(page)
    page.keyboard.press("j")
    until(page, f"document.querySelector('#reader h2')?.textContent !== {json.dumps(first)}")
    page.keyboard.press("k")
    until(page, f"document.querySelector('#reader h2')?.textContent === {json.dumps(first)}")
    page.focus("#list")
    page.keyboard.press("End")
    page.wait_for_selector("#row-59[aria-selected=true]")
    assert page.get_attribute("#list", "aria-activedescendant") == "row-59"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "reader"
    page.keyboard.press("n")
    assert page.evaluate("document.activeElement.id") == "m0"
    page.set_viewport_size({"width": 1400, "height": 450})
    for key in 12 * "n" + 4 * "p":
        page.keyboard.press(key)
    under = "document.querySelector('#reader .bar').getBoundingClientRect().bottom - document.activeElement.getBoundingClientRect().top"
    assert page.evaluate("reader.scrollTop") > 0 and page.evaluate(under) <= 0
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "list"
    page.keyboard.press("?")
    assert page.is_visible("#help")
    page.keyboard.press("Escape")
    assert not page.is_visible("#help")


def test_all_controls_are_reachable_by_tab_and_the_focus_is_seen(page: Page, address: str) -> None:
    opened(page, address, "part=rejects")
    page.keyboard.press("f")
    page.wait_for_selector("#reader .message")
    assert unreachable(page) == set()
    page.focus("#list")
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("4")
    page.wait_for_selector("#charts .plot")
    assert unreachable(page) == set()


def test_on_a_narrow_screen_a_record_takes_the_place_of_the_list_and_back_returns(page: Page, address: str) -> None:
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    opened(page, address)
    assert not page.is_visible("#reader")
    page.click(".row >> nth=1")
    page.wait_for_selector("#reader h2")
    assert not page.is_visible("#list")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click("text=← List")
    page.wait_for_selector("#list", state="visible")
    assert not page.is_visible("#reader")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_follow_the_system_until_they_are_switched(page: Page, address: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    opened(page, address)
    paper = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(paper)
    assert (before == "rgb(255, 255, 255)") == (scheme == "light")
    page.click("[data-switch-theme]")
    assert page.evaluate(paper) != before
    page.reload()
    assert page.evaluate(paper) != before
    page.click("[data-switch-theme]")
    assert page.evaluate(paper) == before


@pytest.mark.parametrize("part", ["traces", "rejects", "preferences"])
def test_hostile_content_is_text_and_nothing_else(page: Page, rewritten_hostile: str, part: str) -> None:
    opened(page, rewritten_hostile, f"part={part}")
    page.wait_for_selector("#reader .message")
    page.keyboard.press("e")
    until(page, "[...document.querySelectorAll('#reader .conversation details')].every(one => one.open)")
    page.wait_for_timeout(200)  # for what would be run later
    assert page.evaluate("window.owned") is None
    assert (
        page.locator(
            "#list img, #list script, #reader img, #reader script, #reader [onload], #reader [onerror], a[href^=javascript]"
        ).count()
        == 0
    )
    text = page.inner_text("#reader")
    assert "<script>window.owned = 1</script>" in text
    assert "\u202e" not in text and "U+202E" in text and "U+E0041" in text and "U+001B" in text
    assert "\u202e" not in page.inner_text("#list")


def test_markup_cannot_be_made_even_by_a_script_of_the_page(chromium: Browser, address: str) -> None:
    with window(chromium) as page:  # not the fixture: the browser logs an error, which is what is wanted here
        opened(page, address)
        told = page.evaluate(
            "() => { try { document.body.insertAdjacentHTML('beforeend', '<b>x</b>'); return 'made'; } catch (e) { return e.name; } }"
        )
        assert told == "TypeError"  # Trusted Types


def growing(milled: Path, out: Path) -> Path:
    """A copy of the run without its rejects, which says that it goes on."""
    shutil.copytree(milled, out, ignore=shutil.ignore_patterns("rejects"))
    (out / "run.json").write_text(json.dumps({**json.loads((out / "run.json").read_text()), "complete": False}))
    return out


def test_an_empty_part_says_why_however_late_the_run_is_known(page: Page, milled: Path, tmp_path: Path) -> None:
    out = growing(milled, tmp_path / "run")
    Index(out, tmp_path / "index.sqlite").update()
    said = "document.getElementById('list-state').textContent"
    with served(lambda: viewer(out, tmp_path / "index.sqlite")) as address:
        page.route("**/api/run", lambda route: until(page, f"{said} === 'Looking …'") or route.continue_())
        page.goto(f"{address}&part=rejects")
        until(page, f"{said} === 'There is no rejection here yet.'")


def test_charts_of_a_run_that_grows_keep_the_focus_and_what_was_unfolded(page: Page, milled: Path, tmp_path: Path) -> None:
    out = growing(milled, tmp_path / "run")
    with served(lambda: viewer(out, tmp_path / "index.sqlite")) as address:
        page.goto(f"{address}&part=charts")
        until(page, "document.querySelector('.tiles b')?.textContent === '60'")
        more = page.locator("#charts section:has(caption:text-is('By template')) .more")
        rows = "document.getElementById('all By template').parentElement.querySelectorAll('tbody tr:not([hidden])').length"
        assert page.evaluate(rows) == 12
        more.press("Enter")
        assert page.evaluate(rows) > 12 and page.evaluate("document.activeElement.id") == "all By template"
        shutil.copytree(milled / "rejects", out / "rejects")
        until(page, "document.querySelectorAll('.tiles b')[1].textContent !== '0'")
        assert page.evaluate(rows) > 12 and page.evaluate("document.activeElement.id") == "all By template"
        more.press("Enter")
        assert page.evaluate(rows) == 12 and more.inner_text().startswith("show all")


def test_a_chart_of_what_was_lost_leads_to_just_that(page: Page, address: str) -> None:
    opened(page, address)
    for title, number in (("Who is to blame for lost scenarios", 0), ("Scenarios through the stages", 1)):
        page.keyboard.press("4")
        row = page.locator(f"#charts section:has(caption:text-is('{title}')) tbody tr:has(a)").first
        counted = row.locator(".n").nth(number).inner_text()
        row.locator("a").click()
        until(page, f"document.getElementById('found').textContent.startsWith('{counted} of ')")


def test_the_last_bar_of_a_histogram_says_that_it_holds_all_beyond(page: Page, address: str) -> None:
    opened(page, address)
    told = page.evaluate("""async () => {
        const { renderCharts } = await import('./charts.js');
        const drawn = renderCharts({ traces: 3, rejects: 0, lost: 0, preferences: 0, accepted: { difficulty: [], kind: [], environment: [],
            ending: [], trouble: [], source: [], template: [] }, revisions: [], funnel: [], reasons: [], blame: [], sources: [], tools: [],
            lengths: { calls: { edges: [1, 3, 5], counts: [1, 2], median: 3, p90: 9, max: 9 } } });
        return [...drawn.querySelectorAll('.plot title, .plot text')].map((one) => one.textContent);
    }""")
    assert told == ["1 to 2: 1 trace", "3 and more: 2 traces", "1", "3 and more"]


def test_a_narrow_list_comes_back_at_the_record_that_was_read_and_has_the_focus(page: Page, address: str) -> None:
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    opened(page, address)
    page.focus("#list")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.wait_for_selector("#reader h2")
    page.go_back()
    page.wait_for_selector("#list", state="visible")
    assert page.evaluate("document.activeElement.id") == "list"
    page.go_forward()
    page.wait_for_selector("#reader h2")
    assert page.evaluate("document.activeElement.id") == "reader"
    page.reload()
    page.wait_for_selector("#reader h2")
    until(page, "document.querySelectorAll('.row .title').length > 0")
    page.click("text=← List")
    page.wait_for_selector("#row-59[aria-selected=true]")
    assert page.evaluate("document.activeElement.id") == "list"


def test_a_long_reason_of_a_rejection_is_cut_and_not_left_out(page: Page, rewritten_hostile: str) -> None:
    opened(page, rewritten_hostile, "part=rejects&stage=goal")
    mark, row = (page.locator(place).first.bounding_box() for place in (".mark + .mark", ".row"))
    assert mark and row and mark["x"] + mark["width"] < row["x"] + row["width"], "else a browser shows … in its place"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_a_field_asks_for_and_where_it_ends_can_be_seen(page: Page, address: str, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    opened(page, address)
    word, edge, inside, around = page.evaluate("""() => {
        const light = (color) => color.match(/[\\d.]+/g).slice(0, 3).map((one) => one / 255)
            .map((one) => (one <= 0.03928 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4)).reduce((sum, one, at) => sum + one * [0.2126, 0.7152, 0.0722][at], 0.05);
        const field = getComputedStyle(query);
        return [getComputedStyle(query, '::placeholder').color, field.borderTopColor, field.backgroundColor, getComputedStyle(browse).backgroundColor].map(light);
    }""")
    assert max(word, inside) / min(word, inside) >= 4.5
    assert min(max(edge, one) / min(edge, one) for one in (inside, around)) >= 3


def test_unfolding_a_long_text_leaves_the_focus_in_its_message(page: Page, address: str) -> None:
    opened(page, address)
    page.wait_for_selector("#reader .message")
    page.evaluate("""async () => {
        const { renderMessages } = await import('./conversation.js');
        const long = JSON.stringify(Array(200).fill(7));
        reader.append(renderMessages([{ role: 'user', content: 'x '.repeat(5000) }, { role: 'tool', content: long }], { prefix: 'z', open: true }));
    }""")
    for place, focused in (("#z0", "z0"), ("#z1", "json")):
        page.locator(f"{place} .more").press("Enter")
        assert page.evaluate("document.activeElement.id || document.activeElement.className") == focused


def test_no_search_is_too_long_for_its_request(page: Page, address: str) -> None:
    opened(page, address)
    page.focus("#query")
    page.keyboard.insert_text("ä" * 9000)
    page.wait_for_selector("#list-state:not([hidden])")
    assert page.inner_text("#list-state").startswith("Nothing passes")


def test_a_page_at_twice_its_size_has_room_for_list_and_filters(page: Page, address: str) -> None:
    page.set_viewport_size({"width": 700, "height": 450})
    opened(page, address)
    page.keyboard.press("f")
    assert page.evaluate("list.clientHeight") > 132  # two rows


@pytest.fixture
def rewritten_hostile(milled: Path, tmp_path: Path) -> Iterator[str]:
    with viewing(hostile(milled, tmp_path / "run"), tmp_path / "index.sqlite") as found:
        yield found


def hostile(milled: Path, out: Path) -> Path:
    """The run, with hostile text in every place where a model, a tool or a user writes."""
    import pyarrow.parquet as pq

    from tracemill.columns import table
    from tracemill.trace import Preference, Rejection, Trace

    for path in [*milled.glob("data/*/*.parquet"), *milled.glob("rejects/*.parquet"), *milled.glob("preferences/*.parquet")]:
        rows = [spoiled(row) for row in pq.read_table(path, partitioning=None).to_pylist()]
        copy = out / path.relative_to(milled)
        copy.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(Rejection if "stage" in rows[0] else Trace if "scenario" in rows[0] else Preference, rows), copy)
    return out


def spoiled(row: Row) -> Row:
    for column in ("messages", "prompt", "chosen", "rejected"):
        row[column] = [json.dumps(harm(json.loads(text))) for text in row[column]] if row.get(column) else row.get(column)
    if "stage" in row:
        row["reason"], row["evidence"], row["raw"] = HOSTILE, [HOSTILE, f"messages[1]: {HOSTILE}"], HOSTILE
    for column in ("environment", "template", "source"):
        if column in row:
            row[column] = HOSTILE
    return {name: value for name, value in row.items() if value is not None or name in ("outcome", "recovery")}


def harm(message: dict[str, object]) -> dict[str, object]:
    message["content"] = HOSTILE
    if message.get("reasoning_content"):
        message["reasoning_content"] = HOSTILE
    if message["role"] == "tool":
        message["name"] = HOSTILE
    for call in message.get("tool_calls") or ():  # type: ignore[attr-defined]
        call["function"] = {"name": HOSTILE, "arguments": {HOSTILE: HOSTILE}}
    return message
