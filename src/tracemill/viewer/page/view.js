// The page of `tracemill view`. Its whole state is the address after #: part, filters, search and record.

import { api, count, h, plural, refill, said, takeToken } from "./dom.js";
import { renderCharts } from "./charts.js";
import { renderMark } from "./conversation.js";
import { LongList } from "./list.js";
import { jump, renderRecord } from "./record.js";

const TABS = [["traces", "Traces"], ["rejects", "Rejects"], ["preferences", "Pairs"], ["charts", "Charts"]];
const FACETS = { kind: "kind", environment: "environment", template: "template", difficulty: "difficulty", ending: "ending", trouble: "trouble", stage: "stage", reason: "reason", blame: "to blame", source: "source", teacher: "teacher" };
const FLAGS = { revised: ["revised", "info"], fault: ["fault", "warn"], masked: ["masked step", "warn"], failed: ["verdict failed", "bad"], lost: ["lost", "bad"], broken: ["not readable", "bad"] };
const NOUNS = { traces: "trace", rejects: "rejection", preferences: "pair" };
const SOON = 1500; // milliseconds between two looks at a run that grows
const LATE = 8000;

const $ = (id) => document.getElementById(id);
const narrow = matchMedia("(max-width: 860px)");
let state = new URLSearchParams();
let run = null;
const NOTHING = { list: "", shown: "", record: "", charts: "", version: "" };
let drawn = { ...NOTHING }; // what of the state is asked for and shown
let busy = 0;

takeToken();

// --- state --------------------------------------------------------------------------------------------------

const part = () => (TABS.some(([name]) => name === state.get("part")) ? state.get("part") : "traces");

function filters() {
  return new URLSearchParams([...state].filter(([name]) => name in FACETS || name === "flag" || name === "q"));
}

/** Change the state: null takes a key out. A step that Back should undo is a new entry of the history. */
function go(changes, { step = false, fresh = false } = {}) {
  const next = new URLSearchParams(fresh ? [] : [...state]);
  for (const [name, value] of Object.entries(changes)) value === null || value === "" ? next.delete(name) : next.set(name, value);
  history[step ? "pushState" : "replaceState"](null, "", `#${next}`);
  follow();
}

function follow() {
  if (takeToken()) { // the server was started again, and its new address opened here
    drawn = { ...NOTHING };
    poll();
  }
  state = new URLSearchParams(location.hash.slice(1));
  const charts = part() === "charts";
  const reading = state.has("record");
  const turned = reading !== document.body.classList.contains("reading");
  document.body.classList.toggle("reading", reading);
  $("browse").hidden = $("reader").hidden = charts;
  $("charts").hidden = !charts;
  for (const tab of $("tabs").children) tab.getAttribute("data-part") === part() ? tab.setAttribute("aria-current", "page") : tab.removeAttribute("aria-current");
  if (document.activeElement !== $("query")) $("query").value = state.get("q") ?? "";
  if (charts) showCharts();
  else {
    showList();
    showRecord();
    if (turned && narrow.matches) enter(reading);
  }
}

/** On a narrow page list and record take each other's place; a list that was not seen could not be scrolled. */
function enter(reading) {
  if (!reading) list.show(list.at);
  (reading ? $("reader") : $("list")).focus({ preventScroll: true });
}

// --- asking -------------------------------------------------------------------------------------------------

async function asking(work) {
  const late = setTimeout(() => ($("loading").hidden = false), 150);
  busy++;
  try {
    return await work();
  } finally {
    clearTimeout(late);
    if (!--busy) $("loading").hidden = true;
  }
}

function failure(reason) {
  return h("div", { class: "state error", role: "alert" }, h("p", {}, said(reason.message)), (reason.problems ?? []).map((one) => h("p", {}, said(one))));
}

let looks = 0;
let later = 0;

async function poll() {
  const turn = ++looks;
  clearTimeout(later);
  let wait = LATE;
  try {
    const next = await api("run");
    if (turn !== looks) return;
    const ripe = run?.settled !== next.settled || run.complete !== next.complete; // why a list is empty may be another reason now
    run = next;
    header();
    if (ripe || run.version !== drawn.version) refresh();
    if (!run.settled || run.rows < run.total || run.complete === false) wait = SOON;
    replace("problems", run.problems.map((one) => h("p", { class: "note bad" }, said(one))));
  } catch (reason) {
    if (turn !== looks) return;
    replace("problems", [failure(reason)]);
    if (reason.status === 401 || reason.status === 403) return; // it will not get better: the address has no key
  }
  later = setTimeout(poll, wait);
}

/** Puts something new into an element, and leaves alone what stands there already: a screen reader would say it again. */
function replace(id, children) {
  const next = refill($(id).cloneNode(false), children);
  if (!next.isEqualNode($(id))) $(id).replaceChildren(...next.childNodes);
}

/** Show what has come in, and leave the reader where they are. */
function refresh() {
  drawn.charts = "";
  drawn.version = run.version;
  if (part() === "charts") showCharts();
  else showList({ keep: true });
}

function header() {
  $("name").replaceChildren(...said(run.name));
  document.title = `${run.name} · tracemill`;
  const condition = run.imported ? "imported" : run.complete ? "complete" : run.complete === false ? "not complete yet" : "";
  $("facts").replaceChildren(...[condition, ...run.facts.map(([name, value]) => `${name} ${value}`)].filter(Boolean).flatMap((one, at) => [at ? " · " : "", ...said(one)]));
  for (const tab of $("tabs").children) tab.querySelector(".soft").replaceChildren(tab.dataset.part in run.parts ? ` ${count(run.parts[tab.dataset.part])}` : "");
  const left = run.total - run.rows;
  replace("progress", (left > 0 ? [h("progress", { value: run.rows, max: run.total, "aria-label": "Indexed" }), ` ${count(run.rows)} of ${plural(run.total, "record")} indexed; the rest comes in`]
    : run.settled ? [] : ["looking for shards"]));
}

// --- list ---------------------------------------------------------------------------------------------------

const list = new LongList($("list"), {
  fetchPage: (from, limit) => asking(() => api(`list?${query({ from, limit })}`)),
  render: entry,
  choose: (row, place, { opened }) => {
    if (opened || !narrow.matches) go({ record: row.name }, { step: opened && narrow.matches });
    if (opened) $("reader").focus();
  },
});

function query(more) {
  const asked = filters();
  for (const [name, value] of Object.entries({ part: part(), ...more })) asked.set(name, value);
  return asked;
}

let asked = 0;

async function showList({ keep = false } = {}) {
  const wanted = query({}).toString();
  if (wanted === drawn.list && !keep) return;
  const again = wanted === drawn.shown;
  drawn.list = wanted;
  const turn = ++asked;
  const near = state.get("record");
  const from = again ? Math.floor(Math.max(0, $("list").scrollTop / 66) / 100) * 100 : 0;
  try {
    const found = await asking(() => api(`list?${query({ from, limit: 100, ...(near ? { near } : {}) })}`));
    if (turn !== asked) return;
    drawn.version = found.version;
    drawn.shown = wanted;
    facets(found);
    told(found);
    list.reset(found, from, { keep: again });
    list.at = found.at ?? -1;
    if (again) list.draw();
    else list.show(list.at);
    if (!state.has("record") && found.rows.length && !narrow.matches) list.go(0);
  } catch (reason) {
    if (turn !== asked) return;
    drawn.list = drawn.shown = "";
    $("list").hidden = true;
    $("list-state").hidden = false;
    $("list-state").replaceChildren(failure(reason));
  }
}

function told(found) {
  const noun = NOUNS[part()];
  const few = found.total !== found.of;
  $("found").replaceChildren(few ? `${count(found.total)} of ${plural(found.of, noun)} ` : plural(found.of, noun),
    ...(few ? [h("button", { type: "button", class: "more", onclick: () => go({ part: part() }, { fresh: true }) }, "show all")] : []));
  $("list").hidden = !found.total;
  $("list-state").hidden = Boolean(found.total);
  const why = found.of ? "Nothing passes the filters and the search." : !run?.settled ? "Looking …" : `There is no ${noun} here${run.complete === false ? " yet" : ""}.`;
  $("list-state").replaceChildren(h("p", {}, why));
  if (!found.total && !state.has("record")) showNothing();
}

function entry(row) {
  const where = [row.kind, row.environment, row.template].filter(Boolean).join(" · ") || row.source || "";
  const size = plural(row.messages, "message");
  const about = row.stage ? [where] : [where, row.difficulty ? `difficulty ${row.difficulty}` : "", size];
  const flags = row.flags.filter((flag) => !(flag === "fault" && row.trouble) && !(flag === "failed" && row.stage));
  return [
    h("span", { class: "title", dir: "auto" }, said(row.title || row.name)),
    h("span", { class: "where soft" }, said(about.filter(Boolean).join(" · "))),
    h("span", { class: "marks" },
      row.trouble ? renderMark({ label: row.trouble, tone: "warn" }) : null,
      flags.map((flag) => renderMark({ label: FLAGS[flag][0], tone: FLAGS[flag][1] })),
      row.stage ? renderMark({ label: `${row.stage}: ${row.reason ?? ""}`.slice(0, 80), tone: "bad" }) : null),
  ];
}

function facets(found) {
  const chosen = document.activeElement?.id;
  const selects = Object.entries(FACETS).filter(([name]) => found.facets[name]?.length > 1 || state.has(name)).map(([name, label]) => {
    const now = state.get(name) ?? "";
    const rows = found.facets[name].some(([value]) => value === now) || !now ? found.facets[name] : [[now, 0], ...found.facets[name]];
    return h("label", {}, h("span", { class: "soft" }, label),
      h("select", { id: `facet-${name}`, onchange: (event) => go({ [name]: event.target.value }, { step: true }) }, h("option", { value: "" }, "any"),
        rows.map(([value, number]) => h("option", { value, selected: value === now }, ...said(`${value} (${count(number)})`)))));
  });
  const set = state.getAll("flag");
  const flags = Object.entries(FLAGS).filter(([flag]) => found.flags[flag] || set.includes(flag)).map(([flag, [label]]) => h("button", {
    type: "button", class: "button", id: `flag-${flag}`, "aria-pressed": String(set.includes(flag)), onclick: () => toggle(flag),
  }, `${label} `, h("span", { class: "soft" }, count(found.flags[flag]))));
  $("filters").replaceChildren(...selects, flags.length ? h("div", { class: "flags", role: "group", "aria-label": "Only those with" }, flags) : "");
  if (chosen && $("filters").querySelector(`#${CSS.escape(chosen)}`)) $(chosen).focus();
  const number = [...filters()].filter(([name]) => name !== "q").length;
  $("filter-button").replaceChildren(number ? `Filters (${number})` : "Filters");
}

function toggle(flag) {
  const flags = state.getAll("flag");
  const next = new URLSearchParams([...state].filter(([name]) => name !== "flag"));
  for (const one of flags.includes(flag) ? flags.filter((other) => other !== flag) : [...flags, flag]) next.append("flag", one);
  history.pushState(null, "", `#${next}`);
  follow();
}

// --- record -------------------------------------------------------------------------------------------------

let reading = null;

async function showRecord() {
  const name = state.get("record") ?? "";
  const wanted = `${name} ${state.get("q") ?? ""}`;
  if (wanted === drawn.record || !name) {
    if (!name && drawn.record) showNothing();
    return;
  }
  drawn.record = wanted;
  reading?.abort();
  reading = new AbortController();
  try {
    const found = await asking(() => api(`record?name=${encodeURIComponent(name)}`, { signal: reading.signal }));
    $("reader").replaceChildren(bar(), renderRecord(found, finder(state.get("q") ?? "")));
    $("reader").scrollTop = 0;
    if (narrow.matches) scrollTo(0, 0);
    $("reader").querySelector("mark")?.scrollIntoView({ block: "center" });
  } catch (reason) {
    if (reason.name === "AbortError") return;
    drawn.record = "";
    $("reader").replaceChildren(bar(), failure(reason));
  }
}

function showNothing() {
  drawn.record = "";
  $("reader").replaceChildren(h("p", { class: "state" }, "Choose a record to read it here."));
}

function bar() {
  const link = h("button", { type: "button", class: "button", onclick: () => navigator.clipboard?.writeText(location.href).then(() => link.replaceChildren("Copied")) }, "Copy link");
  return h("div", { class: "bar" },
    h("button", { type: "button", class: "button back", onclick: back }, "← List"),
    h("button", { type: "button", class: "button", "aria-label": "Previous record", onclick: stepOpen(-1) }, "↑"), h("button", { type: "button", class: "button", "aria-label": "Next record", onclick: stepOpen(1) }, "↓"),
    h("button", { type: "button", class: "button", onclick: unfold }, "Unfold all"), link);
}

const stepOpen = (by) => () => {
  list.show(Math.min(Math.max(0, list.at + by), list.total - 1));
  const row = list.row(list.at);
  if (row) go({ record: row.name });
  else list.go(list.at, true);
};

const back = () => go({ record: null });

function unfold() {
  const all = [...$("reader").querySelectorAll("details")];
  const open = !all.every((one) => one.open);
  for (const one of all) one.open = open;
}

/** What a search marks: its words, without those that must be missing. */
function finder(text) {
  const words = [...text.matchAll(/(-?)(?:"([^"]*)"?|(\S+))/g)].filter((match) => !match[1]).map((match) => (match[2] ?? match[3]).replaceAll('"', ""));
  const ends = words.filter((word) => /[\p{L}\p{N}]/u.test(word)).map((word) => {
    const open = word.endsWith("*") && word.length > 3;
    return `${word.replace(/\*+$/, "").replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}${open ? "" : "(?![\\p{L}\\p{N}])"}`;
  });
  return ends.length ? new RegExp(`(?<![\\p{L}\\p{N}])(?:${ends.join("|")})`, "giu") : null;
}

function message(by) {
  const all = [...$("reader").querySelectorAll(".message")];
  const now = all.indexOf(document.activeElement?.closest?.(".message"));
  const next = all[Math.min(Math.max(0, now + by), all.length - 1)];
  if (next?.id.startsWith("m")) jump(next.id.slice(1));
  else next?.focus();
}

// --- charts -------------------------------------------------------------------------------------------------

async function showCharts() {
  if (drawn.charts) return;
  drawn.charts = "now";
  try {
    const next = renderCharts(await asking(() => api("charts")));
    const focused = $("charts").contains(document.activeElement) ? document.activeElement.id : "";
    $("charts").replaceChildren(next);
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  } catch (reason) {
    drawn.charts = "";
    $("charts").replaceChildren(failure(reason));
  }
}

// --- keys ---------------------------------------------------------------------------------------------------

const keys = {
  j: () => (document.body.classList.contains("reading") && narrow.matches ? stepOpen(1)() : list.go(list.at + 1)),
  k: () => (document.body.classList.contains("reading") && narrow.matches ? stepOpen(-1)() : list.go(list.at - 1)),
  n: () => message(1),
  p: () => message(-1),
  e: unfold,
  f: () => openFilters(true),
  "/": () => {
    if (narrow.matches && state.has("record")) back();
    $("query").focus();
    $("query").select();
  },
  "?": () => $("help").showModal(),
  ...Object.fromEntries(TABS.map(([name], at) => [at + 1, () => go({ part: name }, { step: true, fresh: true })])),
};

function openFilters(open) {
  $("filters").hidden = !open;
  $("filter-button").setAttribute("aria-expanded", String(open));
  if (open) $("filters").querySelector("select, button")?.focus();
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (event.key === "Escape") {
    if (!$("filters").hidden && $("filters").contains(document.activeElement)) $("filter-button").focus();
    else if (narrow.matches && state.has("record")) back();
    else $("list").focus();
    return;
  }
  if (event.target.closest("input, select, textarea") || !(event.key in keys)) return;
  if (part() === "charts" && "jknpef/".includes(event.key)) return;
  event.preventDefault();
  keys[event.key]();
});

let typing = 0;
$("query").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(seek, 180);
});
function seek() {
  const q = $("query").value.trim();
  if (q !== (state.get("q") ?? "")) go({ q, record: null });
}
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  seek();
  $("list").focus();
});
$("filter-button").addEventListener("click", () => openFilters($("filters").hidden));
$("help-button").addEventListener("click", () => $("help").showModal());
addEventListener("hashchange", follow);
addEventListener("popstate", follow);

$("tabs").append(...TABS.map(([name, label]) => h("a", { class: "button", href: `#part=${name}`, "data-part": name }, label, h("span", { class: "soft" }))));
showNothing();
follow();
poll();
