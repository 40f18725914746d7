// One record to read: what it is, what the checks found, and its conversation.

import { renderJson, renderMark, renderMessages, renderNote } from "./conversation.js";
import { h, phrase, plural, said, words } from "./dom.js";
import { renderPlan } from "./plan.js";

const CHECKS = ["state", "untouched", "allowed", "grounded", "confirmed", "told"];
const PROOF = [["without_fault_holds", "without the trouble the goal is reached"], ["without_recovery_fails", "without the recovery it is missed"]];

/** What the reader shows of an answer of /api/record; `find` is a RegExp of what was searched for. */
export function renderRecord({ form, record, marks, problem, linked }, find) {
  const options = { tools: record.tools, effects: record.effects, marks, find, openFound: true };
  const parts = { trace: ofTrace, rejection: ofRejection, refusal: ofRejection, conversation: ofConversation, preference: ofPreference }[form](record, linked);
  return h("article", { "aria-label": record.id },
    h("header", { class: "about" }, h("h2", { class: "mono" }, said(record.id)), problem ? renderNote({ label: "broken", tone: "bad", detail: problem }) : null, parts),
    form === "preference" ? pair(record, options) : conversation(record, options),
    h("footer", {}, folds(record)));
}

function conversation(record, options) {
  if (record.messages?.length) return renderMessages(record.messages, options);
  return record.raw ? [h("h3", {}, "What was written"), renderJson(record.raw, options)] : h("p", { class: "state" }, "There is no conversation.");
}

function pair(record, options) {
  const start = record.prompt.length;
  const side = (name, tone, messages, prefix) => h("section", { class: `side ${tone}`, "aria-label": name },
    h("h3", {}, renderMark({ label: name, tone })), renderMessages(messages, { ...options, start, prefix }));
  return [
    renderMessages(record.prompt, options),
    h("div", { class: "pair" }, side("chosen", "good", record.chosen, "a"), side("rejected", "bad", record.rejected, "b")),
  ];
}

function ofTrace(record) {
  const scenario = record.scenario ?? {};
  const ending = scenario.honest_end ? "handed over" : words(scenario.ending ?? "").replaceAll("_", " ");
  return [
    facts([
      ["kind", record.kind], ["environment", record.environment], ["template", record.template], ["difficulty", record.difficulty], ["ends", ending],
      ["index", record.index], ["teacher", record.teacher], ["user", scenario.persona?.tone], ["revisions", record.revisions],
    ]),
    checks(record.outcome),
    (record.outcome?.problems ?? []).map((detail) => renderNote({ label: "outcome", tone: "bad", detail })),
    trouble(scenario),
    record.recovery ? line("proof", PROOF.map(([name, label]) => sign(label, record.recovery[name]))) : null,
    verdicts(record.verdicts ?? []),
  ];
}

function ofRejection(record) {
  const evidence = (record.evidence ?? []).filter((one) => one !== record.reason);
  return [
    facts([
      ["kind", record.kind], ["environment", record.environment], ["template", record.template], ["file", record.source], ["index", record.index],
      ["attempt", record.attempt === undefined ? undefined : record.attempt === 0 ? "first draft" : phrase`revision ${record.attempt}`],
      ["then", record.final === undefined ? undefined : record.final ? "the scenario was lost" : "sent back for revision"],
      ["to blame", record.blame], ["reward", record.reward],
    ]),
    renderNote({ label: phrase`failed at ${record.stage}`, tone: "bad", detail: record.reason }),
    evidence.length ? h("details", { class: "fold", open: evidence.length < 4 }, h("summary", {}, h("span", { class: "line" }, plural(evidence.length, "more finding"))),
      h("ul", { class: "evidence" }, evidence.map((one) => h("li", {}, said(one))))) : null,
    verdicts(record.verdicts ?? []),
  ];
}

function ofConversation(record) {
  return [facts([["file", record.source], ["row", record.index], ["its id", record.row_id], ["reward", record.reward]]),
    h("p", { class: "soft" }, "Imported: its form was checked; it was not replayed.")];
}

/** `linked`: the traces are here too, which they are not in an export. */
function ofPreference(record, linked) {
  return facts([["from", record.source], ["margin", record.margin], ["index", record.index],
    ["trace", linked ? h("a", { href: `#part=traces&record=${encodeURIComponent(record.trace)}` }, said(record.trace)) : record.trace]]);
}

function facts(rows) {
  const told = rows.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return h("dl", { class: "facts" }, told.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value instanceof Node ? value : said(value)))));
}

const line = (name, parts) => h("p", { class: "checks" }, h("span", { class: "soft" }, `${name} `), parts);

function sign(label, holds) {
  return renderMark({ label: `${{ true: "✓", false: "✗" }[words(holds)] ?? "–"} ${label}`, tone: { true: "good", false: "bad" }[words(holds)] ?? "warn" });
}

function checks(outcome) {
  if (!outcome) return line("checks", renderMark({ label: "none made", tone: "warn" }));
  return line("checks", CHECKS.map((name) => sign(name, outcome[name])));
}

function trouble(scenario) {
  const faults = (scenario.faults ?? []).map((one) => renderMark({
    label: phrase`fault ${one.kind}: call ${one.nth ?? 1} of ${one.tool}`, tone: "warn",
    title: `${one.explicit ? "explicit" : "implicit"}, ${one.transient ? "transient" : "permanent"}` }));
  const mistakes = (scenario.mistakes ?? []).map((one) => renderMark({ label: phrase`wrong step ${one.kind}: ${one.call?.tool}${Number(words(one.times)) > 1 ? phrase`, ${one.times} times` : ""}`, tone: "warn" }));
  const flaw = scenario.flaw ? [renderMark({ label: phrase`flaw ${scenario.flaw}, put into the first draft on purpose`, tone: "warn" })] : [];
  return faults.length + mistakes.length + flaw.length ? line("trouble", [...faults, ...mistakes, ...flaw]) : null;
}

/** The principles: those that were broken in full, all others folded. */
function verdicts(all) {
  if (!all.length) return null;
  const broken = all.filter((one) => !one.passed);
  const rows = all.map((one) => h("tr", {},
    h("td", {}, renderMark({ label: one.passed ? "✓ kept" : "✗ broken", tone: one.passed ? "good" : "bad" })), h("th", { scope: "row" }, said(one.principle)),
    h("td", { class: "soft" }, said(phrase`${one.severity}, by ${one.by}`)),
    h("td", {}, one.at === undefined ? "" : h("a", { href: "#", onclick: (event) => { event.preventDefault(); jump(one.at); } }, phrase`message ${one.at}`), " ", said(one.why ?? ""))));
  return [
    broken.filter((one) => one.at === undefined).map((one) => renderNote({ label: one.principle, tone: "bad", detail: phrase`${one.why} (${one.severity}, by ${one.by})` })),
    h("details", { class: "fold" },
      h("summary", {}, h("span", { class: "line" }, `principles: ${all.length - broken.length} of ${all.length} kept `, broken.length ? renderMark({ label: `${broken.length} broken`, tone: "bad" }) : null)),
      h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": "Verdicts" }, h("table", { class: "verdicts" }, h("tbody", {}, rows)))),
  ];
}

/** Go to a message of the record that is shown. */
export function jump(at) {
  const message = document.getElementById(phrase`m${at}`);
  message?.focus({ preventScroll: true });
  message?.scrollIntoView({ block: "nearest" });
}

function effectOf(record, tool) {
  const effect = record.effects?.[words(tool.function?.name)];
  return effect ? h("span", { class: phrase`effect ${effect}` }, said(effect)) : null;
}

function folds(record) {
  const fold = (title, inside) => {
    const box = h("details", { class: "fold" }, h("summary", {}, h("span", { class: "line" }, title)));
    box.addEventListener("toggle", () => box.children.length > 1 || box.append(...[inside()].flat()), { once: true });
    return box;
  };
  const goals = record.scenario?.subgoals ?? [];
  const reference = () => renderPlan({
    subgoals: goals.map((one, at) => ({ id: `g${at + 1}`, goal: one.goal, success_criterion: one.success, depends_on: (one.depends_on ?? []).map((need) => `g${Number(words(need)) + 1}`) })),
  });
  return [
    goals.length > 1 ? fold("reference plan of the scenario", reference) : null,
    record.scenario ? fold("scenario", () => renderJson(JSON.stringify(record.scenario))) : null,
    record.tools?.length ? fold(`${plural(record.tools.length, "tool")} offered`, () => record.tools.map((tool) =>
      h("div", { class: "offered" }, h("strong", { class: "mono" }, said(tool.function?.name)), " ",
        effectOf(record, tool),
        h("span", { class: "soft" }, said(tool.function?.description ?? "")), renderJson(JSON.stringify(tool.function?.parameters ?? {}))))) : null,
    fold("the whole record as JSON", () => renderJson(JSON.stringify(record))),
  ];
}
