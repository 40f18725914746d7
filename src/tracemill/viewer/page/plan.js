// A plan as a graph: sub-goals in layers, each below all that it depends on; and as a list with everything that it says.

import { h, plain, s, said, words } from "./dom.js";

const WIDTH = 210;
const GAP = 18;
const LAYER = 46; // between layers, for the arrows
const LINE = 16;
const LETTERS = 30; // of a line
const MOST = 3; // lines of a goal

let graphs = 0;

/** <figure> of the arguments of update_plan. Anything may stand in them: a call is recorded before it is checked. */
export function renderPlan(plan) {
  const goals = list(plan.subgoals).map((one, place) => goal(one, place));
  return h("figure", { class: "plan" },
    plan.goal ? h("figcaption", { dir: "auto" }, h("span", { class: "soft" }, "Plan: "), said(words(plan.goal))) : null,
    plan.reason ? h("p", { class: "soft" }, "because ", said(words(plan.reason))) : null,
    list(plan.constraints).map((one) => h("p", { class: "soft" }, "respecting ", said(words(one)))),
    goals.length ? h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Graph of the plan" }, graph(goals)) : null,
    h("details", { class: "fold goals" }, h("summary", {}, h("span", { class: "line" }, "sub-goals in words")), h("ol", {}, goals.map(inWords))));
}

const list = (value) => (Array.isArray(value) ? value : []);

function goal(one, place) {
  const given = one && typeof one === "object" ? one : { goal: one };
  return {
    id: given.id === undefined ? `#${place + 1}` : words(given.id), goal: words(given.goal ?? ""), needs: list(given.depends_on).map(words),
    tools: list(given.tools).map(words), until: given.success_criterion ? words(given.success_criterion) : "", rules: list(given.constraints).map(words),
  };
}

function inWords({ id, goal: what, needs, tools, until, rules }) {
  return h("li", {}, h("strong", {}, said(id)), " ", said(what),
    needs.length ? h("div", { class: "soft" }, "after ", said(needs.join(", "))) : null,
    tools.length ? h("div", { class: "soft" }, "by ", said(tools.join(", "))) : null,
    until ? h("div", { class: "soft" }, "until ", said(until)) : null,
    rules.map((rule) => h("div", { class: "soft" }, "respecting ", said(rule))));
}

/** Layer of each goal: one below the lowest of what it depends on. What only a circle leads to stays where it is. */
export function layers(goals) {
  const depth = new Map(goals.map(({ id }) => [id, 0]));
  for (let round = 0; round < goals.length; round++) {
    for (const { id, needs } of goals) {
      const above = needs.filter((need) => need !== id && depth.has(need)).map((need) => depth.get(need) + 1);
      depth.set(id, Math.min(Math.max(0, ...above), goals.length - 1));
    }
  }
  return depth;
}

function graph(goals) {
  const depth = layers(goals);
  const rows = [];
  for (const one of goals) (rows[depth.get(one.id)] ??= []).push({ ...one, lines: wrapped(one.goal) });
  const used = rows.filter(Boolean);
  const width = Math.max(...used.map((row) => row.length)) * (WIDTH + GAP) - GAP + 4;
  const places = new Map();
  let y = 2;
  for (const row of used) {
    ordered(row, places);
    const height = Math.max(...row.map((one) => one.lines.length)) * LINE + 2 * LINE + 10;
    row.forEach((one, place) => places.set(one.id, { x: (width - row.length * (WIDTH + GAP) + GAP) / 2 + place * (WIDTH + GAP), y, height }));
    y += height + LAYER;
  }
  const arrow = `arrow-${graphs++}`;
  return s("svg", { class: "dag", width, height: y - LAYER + 2, viewBox: `0 0 ${width} ${y - LAYER + 2}`, role: "img", "aria-label": plain(told(goals)) },
    s("defs", {}, s("marker", { id: arrow, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto" }, s("path", { d: "M0,0 L8,4 L0,8 z" }))),
    goals.flatMap((one) => one.needs.filter((need) => places.has(need)).map((need) => edge(places.get(need), places.get(one.id), arrow))),
    used.flat().map((one) => node(one, places.get(one.id))));
}

/** Left to right in the order of what they hang from, so that fewer arrows cross. */
function ordered(row, places) {
  const pull = ({ needs }) => {
    const above = needs.filter((need) => places.has(need)).map((need) => places.get(need).x);
    return above.length ? above.reduce((sum, x) => sum + x, 0) / above.length : 0;
  };
  row.sort((one, other) => pull(one) - pull(other));
}

function edge(from, to, arrow) {
  const [x1, y1, x2, y2] = [from.x + WIDTH / 2, from.y + from.height, to.x + WIDTH / 2, to.y];
  return s("path", { class: "edge", d: `M${x1},${y1} C${x1},${y1 + LAYER / 2} ${x2},${y2 - LAYER / 2} ${x2},${y2 - 1}`, "marker-end": `url(#${arrow})` });
}

function node({ id, goal: what, lines, tools, until }, { x, y, height }) {
  const line = (text, at, kind) => s("text", { x: x + 10, y: y + 4 + LINE * (at + 1) - 3, class: kind }, plain(text));
  return s("g", { class: "goal" },
    s("title", {}, plain([`${id}: ${what}`, until && `until ${until}`].filter(Boolean).join("\n"))),
    s("rect", { x, y, width: WIDTH, height, rx: 6 }),
    line(cut(id, LETTERS), 0, "id"), lines.map((one, at) => line(one, at + 1, "")), line(cut(tools.join(", "), LETTERS + 3), lines.length + 1, "tools"));
}

function wrapped(text) {
  const lines = [""];
  for (const word of text.split(/\s+/)) {
    const last = lines[lines.length - 1];
    if (last && last.length + word.length + 1 > LETTERS) lines.push(word);
    else lines[lines.length - 1] = last ? `${last} ${word}` : word;
  }
  const kept = lines.slice(0, MOST).map((line) => cut(line, LETTERS));
  if (lines.length > MOST) kept[MOST - 1] = cut(`${kept[MOST - 1]} …`, LETTERS);
  return kept;
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function told(goals) {
  return `Plan of ${goals.length} sub-goals. ${goals.map(({ id, goal: what, needs }) => `${id}: ${what}${needs.length ? `, after ${needs.join(" and ")}` : ""}`).join(". ")}`;
}
