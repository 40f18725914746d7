// Charts of the run. Every bar stands in a row of a table that has its figure, so that nothing is only drawn.

import { count, h, plural, s, said } from "./dom.js";

const FEW = 12; // rows of a chart at first
const unfolded = new Set(); // titles of the charts of which all rows are shown, also when they are drawn anew

/** What /api/charts has, as sections. */
export function renderCharts(figures) {
  if (!figures.traces && !figures.rejects) return h("p", { class: "state" }, "There is nothing to draw yet.");
  const accepted = (name, title) => bars(title, figures.accepted[name], { part: "traces", facet: name });
  return h("div", {},
    h("ul", { class: "tiles" }, tile("traces", figures.traces), tile("scenarios lost", figures.lost), tile("drafts sent back", figures.rejects - figures.lost),
      tile("preference pairs", figures.preferences)),
    h("div", { class: "columns" },
      accepted("kind", "Accepted by kind"), accepted("environment", "By environment"), bars("By difficulty", figures.accepted.difficulty.toSorted(([one], [other]) => one - other), { part: "traces", facet: "difficulty" }),
      accepted("ending", "By ending"), accepted("trouble", "By trouble"), accepted("source", "By file"),
      bars("By number of revisions", figures.revisions.length > 1 ? figures.revisions : []),
      funnel(figures.funnel), bars("Reasons of rejections", figures.reasons, { part: "rejects", facet: "reason", tone: "bad" }),
      bars("Who is to blame for lost scenarios", figures.blame, { part: "rejects", flag: "lost", facet: "blame", tone: "bad" }),
      bars("Where pairs come from", figures.sources, { part: "preferences", facet: "source" }),
      Object.entries(figures.lengths).map(([name, one]) => histogram(name, one)),
      tools(figures.tools), accepted("template", "By template")));
}

const tile = (name, number) => h("li", {}, h("small", {}, name), h("b", {}, count(number)));

function bar(share, tone = "", part = 0) {
  return s("svg", { class: `bar ${tone}`, width: "100%", height: 14, "aria-hidden": "true" },
    s("rect", { class: "track", width: "100%", height: 10, y: 2, rx: 2 }),
    s("rect", { class: "fill", width: `${(100 * share).toFixed(2)}%`, height: 10, y: 2, rx: 2 }),
    part ? s("rect", { class: "failed", width: `${(100 * part).toFixed(2)}%`, height: 10, y: 2, rx: 2 }) : null);
}

function table(title, heads, rows) {
  const body = h("tbody", {}, rows);
  const more = rows.length > FEW ? h("button", { class: "more", type: "button", id: `all ${title}`, onclick: () => { unfolded.delete(title) || unfolded.add(title); fold(); } }) : null;
  const fold = () => {
    const all = unfolded.has(title);
    rows.slice(FEW).forEach((row) => { row.hidden = !all; });
    more?.replaceChildren(all ? `show the first ${FEW}` : `show all ${rows.length}`);
  };
  fold();
  return h("section", { class: "chart" }, h("table", {}, h("caption", {}, title), h("thead", {}, h("tr", {}, heads.map(([name, kind]) => h(name ? "th" : "td", { class: kind, scope: name ? "col" : null }, name)))), body), more);
}

/** To the records that a filter leaves, with its last value as the text. */
function link(filter) {
  const to = `#${new URLSearchParams(filter)}`;
  return h("a", { href: to, id: to }, said(Object.values(filter).at(-1)));
}

/** Rows of [label, number]; each label is a link to what it counts. */
function bars(title, rows, { part = null, flag = null, facet = null, tone = "" } = {}) {
  if (!rows.length) return null;
  const all = rows.reduce((sum, [, number]) => sum + number, 0);
  const most = Math.max(...rows.map(([, number]) => number));
  const name = (label) => (part ? link({ part, ...(flag && { flag }), [facet]: label }) : said(label));
  return table(title, [["label", "sr-only"], ["", ""], ["number", "n"], ["share", "n"]], rows.map(([label, number]) => h("tr", {},
    h("th", { scope: "row" }, name(label)), h("td", { class: "drawn" }, bar(number / most, tone)), h("td", { class: "n" }, count(number)),
    h("td", { class: "n soft" }, `${(100 * number / all).toFixed(1)}%`))));
}

function funnel(rows) {
  const most = rows[0]?.[1];
  if (!most) return null;
  const left = rows[rows.length - 1][1] - rows[rows.length - 1][2];
  const line = (stage, reached, lost) => h("tr", {}, h("th", { scope: "row" }, lost ? link({ part: "rejects", flag: "lost", stage }) : said(stage)),
    h("td", { class: "drawn" }, bar(reached / most, "plain")), h("td", { class: "n" }, count(reached)), h("td", { class: "n soft" }, lost === null ? "" : count(lost)));
  return table("Scenarios through the stages", [["stage", ""], ["", ""], ["reached", "n"], ["lost", "n"]], [...rows.map((row) => line(...row)), line("accepted", left, null)]);
}

function tools(rows) {
  if (!rows.length) return null;
  const most = Math.max(...rows.map(([, calls]) => calls), 1);
  return table("Calls of tools, and failed ones", [["tool", ""], ["", ""], ["calls", "n"], ["failed", "n"]], rows.map(([name, calls, failed]) => h("tr", {},
    h("th", { scope: "row", class: "mono" }, said(name)), h("td", { class: "drawn" }, bar(calls / most, "", failed / most)), h("td", { class: "n" }, count(calls)), h("td", { class: "n soft" }, count(failed)))));
}

function histogram(name, { edges, counts, median, p90, max }) {
  if (!counts.length) return null;
  const most = Math.max(...counts);
  const [width, height, foot] = [440, 110, 18];
  const step = width / counts.length;
  const text = (x, label, anchor) => s("text", { x, y: height + foot - 4, "text-anchor": anchor }, label);
  return h("figure", { class: "chart" }, h("figcaption", {}, `Length of a trace in ${name}`),
    s("svg", { class: "plot", viewBox: `0 0 ${width} ${height + foot}`, role: "img", "aria-label": `Histogram of ${name}: median ${count(median)}, 90% up to ${count(p90)}, longest ${count(max)}` },
      counts.map((number, at) => s("rect", { x: at * step + 1, y: height - (height - 4) * number / most, width: Math.max(1, step - 2), height: (height - 4) * number / most },
        s("title", {}, `${count(edges[at])} ${at === counts.length - 1 ? "and more" : `to ${count(edges[at + 1] - 1)}`}: ${plural(number, "trace")}`))),
      s("line", { class: "grid", x1: 0, x2: width, y1: height, y2: height }), text(0, count(edges[0]), "start"), text(width, `${count(edges.at(-2))} and more`, "end")),
    h("p", { class: "soft" }, `median ${count(median)}, 90% up to ${count(p90)}, longest ${count(max)}`));
}
