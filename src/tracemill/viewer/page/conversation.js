// A conversation as a list: who speaks, what is thought, called and returned; marks and notes beside the message.

import { count, h, parsed, phrase, plain, plural, refill, said, words } from "./dom.js";
import { renderPlan } from "./plan.js";

const ROLES = { system: "system", user: "user", assistant: "agent", tool: "result" };
const LONG = 1500; // characters that are shown of a text at first
const LINES = 30;
const AROUND = 200; // characters before what a search has found further on

/**
 * The messages as an <ol>.
 *
 * @param messages as in a record: {role, content, reasoning_content?, tool_calls?, train?, tool_call_id?, name?}
 * @param options.tools    offered tools, for what a call does: [{function: {name, description}}]
 * @param options.effects  effect by tool name: read | write | irreversible
 * @param options.marks    by message index: [{label, tone, detail?}], tone: good | warn | bad | info;
 *                         with a detail it is a note beside the message, else a badge in its head
 * @param options.start    index of the first message, where the list is the end of a longer one (0)
 * @param options.open     unfold everything (false)
 * @param options.find     RegExp with flag g: what is marked in the texts
 * @param options.prefix   of the elements' ids ("m": the third message is #m2); must be unique in a page
 */
export function renderMessages(messages, options = {}) {
  const start = options.start ?? 0;
  const items = messages.map((message, place) => renderMessage(message, start + place, options));
  return h("ol", { class: "conversation", "aria-label": "Conversation" }, items);
}

/** One message as an <li>; `at` is its index in the record. Options as above. */
export function renderMessage(message, at, options = {}) {
  const all = options.marks?.[at] ?? [];
  const marks = message.train === false ? [{ label: "wrong step, not trained", tone: "warn" }, ...all] : all;
  const notes = marks.filter((mark) => mark.detail);
  const known = ROLES[words(message.role)];
  const head = h("header", {},
    h("span", { class: "at", title: `messages[${at}]` }, String(at)),
    h("span", { class: "role" }, said(known ?? message.role)),
    marks.filter((mark) => !mark.detail).map(renderMark));
  return h("li",
    { id: `${options.prefix ?? "m"}${at}`, class: `message ${known ? message.role : ""}${message.train === false ? " masked" : ""}`, tabindex: "-1" },
    head, h("div", { class: "body" }, body(message, options)),
    notes.length ? h("aside", { class: "notes", "aria-label": `Notes on message ${at}` }, notes.map(renderNote)) : null);
}

/** A badge. */
export function renderMark({ label, tone = "info", title = null }) {
  return h("span", { class: `mark ${tone}`, title: title === null ? null : plain(title) }, said(label));
}

/** A note: what is said of a message, and why. */
export function renderNote({ label, tone = "info", detail }) {
  return h("p", { class: `note ${tone}` }, h("strong", {}, said(label)), " ", h("span", {}, said(detail)));
}

function body(message, options) {
  if (message.role === "tool") return result(message, options);
  if (message.role === "system") return folded("system", gist(message.content), () => longText(message.content), { open: options.open }); // no search goes over it
  const parts = [];
  if (message.reasoning_content) {
    parts.push(folded("reasoning", [h("span", { class: "kind" }, "thinks "), ...gist(message.reasoning_content, options)], () => longText(message.reasoning_content, options), options));
  }
  if (message.content) parts.push(longText(message.content, options));
  for (const call of message.tool_calls ?? []) parts.push(renderCall(call, options));
  if (!parts.length) parts.push(h("p", { class: "soft" }, "(nothing said)"));
  return parts;
}

/** A call: name and arguments in a line, unfolded as JSON; a plan as its graph. */
export function renderCall(call, options = {}) {
  const { name, arguments: given } = call.function ?? {};
  const spec = (options.tools ?? []).find((tool) => tool.function?.name === name)?.function;
  const effect = options.effects?.[words(name)];
  const line = [
    h("span", { class: "tool" }, said(name)),
    effect ? h("span", { class: phrase`effect ${effect}` }, said(effect)) : null,
    name === "update_plan" ? h("span", { class: "soft" }, given?.revision ? [" revision ", said(given.revision)] : " the plan")
      : h("span", { class: "arguments" }, said(brief(given), options.find)),
  ];
  const inside = () => [
    spec?.description ? h("p", { class: "soft" }, said(spec.description)) : null,
    renderJson(JSON.stringify(given ?? null), options),
  ];
  const box = folded("call", line, inside, options);
  if (name !== "update_plan" || !Array.isArray(given?.subgoals)) return box;
  return [box, renderPlan(given)];
}

function result(message, options) {
  const error = parsed(words(message.content))?.error;
  const head = error ? phrase`${error.code ?? "error"}: ${error.message ?? (typeof error === "string" ? error : "")}` : words(message.content);
  const line = [h("span", { class: "tool" }, said(message.name ?? "")), h("span", { class: error ? "gist failed" : "gist" }, said(head.slice(0, 300), options.find))];
  return folded("result", line, () => renderJson(message.content, options), options);
}

/** <details> whose inside is made when it is first opened, or to see whether a search marks something in it. */
function folded(kind, line, inside, options) {
  const box = h("details", { class: `fold ${kind}` }, h("summary", {}, h("span", { class: "line" }, line)));
  const make = () => [inside()].flat().filter(Boolean);
  const made = options.open || (options.find && options.openFound) ? make() : [];
  if (options.open || made.some((node) => node.querySelector("mark"))) {
    box.append(...made);
    box.open = true;
  } else {
    box.addEventListener("toggle", () => box.children.length > 1 || box.append(...make()), { once: true });
  }
  return box;
}

function gist(text, options = {}) {
  return [h("span", { class: "gist" }, said(words(text).trimStart().split("\n", 1)[0].slice(0, 300), options.find))];
}

function brief(given) {
  if (given === null || typeof given !== "object") return `(${JSON.stringify(given)})`;
  return `(${Object.entries(given).map(([name, value]) => `${name}=${JSON.stringify(value)}`).join(", ")})`.slice(0, 300);
}

/** Text; of a long one its beginning, what a search has found beyond it, and a button for the rest. */
export function longText(text, options = {}, tag = "div") {
  const box = h(tag, { class: "text", dir: "auto" });
  return refill(box, cutText(words(text), box, options.find));
}

/** What of a text stands in `box` at first, with a button that shows the whole in its place. */
function cutText(whole, box, find) {
  const cut = cutAt(whole);
  if (cut >= whole.length) return said(whole, find);
  const all = () => stay(box, [h("span", {}, said(whole, find))]); // as one: with dir="auto" a browser looks at all nodes again after each
  const more = h("button", { class: "more", type: "button", onclick: all }, `show all ${count(whole.length)} characters`);
  const hit = find ? firstBeyond(whole, cut, find) : -1;
  if (hit < 0) return [said(whole.slice(0, cut), find), "… ", more];
  const [from, to] = [hit - AROUND, hit + 2 * AROUND];
  if (from <= cut) return [said(whole.slice(0, to), find), "… ", more];
  return [said(whole.slice(0, cut), find), "… ", said(whole.slice(from, to), find), "… ", more];
}

/** Puts the whole in the place of a part and its button, and gives the focus, which the button had, to what stands there. */
function stay(box, whole) {
  refill(box, whole);
  box.closest("[tabindex]")?.focus({ preventScroll: true });
}

/** Where the first that a search finds begins of what ends beyond a place; -1 if nothing does. */
function firstBeyond(text, place, find) {
  for (const match of text.matchAll(find)) if (match.index + match[0].length > place) return match.index;
  return -1;
}

function cutAt(text) {
  if (text.length <= LONG * 1.2 && text.split("\n", LINES + 6).length <= LINES + 5) return text.length;
  let end = -1;
  for (let line = 0; line < LINES; line++) {
    end = text.indexOf("\n", end + 1);
    if (end < 0) break;
  }
  return Math.min(end < 0 ? text.length : end, LONG);
}

const TOKEN = /"|-?\d[\d.eE+-]*|true|false|null|[{}[\],:]/g; // of a string its beginning

/** JSON laid out and coloured, from its text, so that numbers and escapes stay as they are; other text as it is. */
export function renderJson(given, options = {}) {
  const text = words(given);
  const value = parsed(text);
  if (value === undefined || value === null || typeof value !== "object") return longText(text, options, "pre");
  const laid = layOut(text);
  const lines = laid.length;
  const box = h("pre", { class: "json", tabindex: "0", "aria-label": "JSON" });
  const show = (most) => {
    const rest = laid.slice(most);
    const hit = options.find ? rest.find(({ tokens }) => tokens.some(([kind, token]) => kind && token.search(options.find) >= 0)) : undefined; // not test(), which would leave its place in the expression
    refill(box, [
      laid.slice(0, most).map((one, place) => [place ? "\n" : "", jsonLine(one, options.find)]),
      hit ? [hit === rest[0] ? "\n" : "\n…\n", jsonLine(hit, options.find)] : [],
      rest.length ? ["\n", h("button", { class: "more", type: "button", onclick: () => { show(lines); box.focus({ preventScroll: true }); } }, `show all ${plural(lines, "line")}`)] : [],
    ]);
  };
  show(lines > LINES * 1.3 ? LINES : lines);
  return box;
}

function jsonLine({ depth, tokens }, find) {
  return ["  ".repeat(depth), tokens.map(([kind, token]) => {
    if (!kind) return token;
    const box = h("span", { class: kind });
    return refill(box, cutText(token, box, find));
  })];
}

function layOut(text) {
  const lines = [{ depth: 0, tokens: [] }];
  const tokens = tokensOf(text);
  let depth = 0;
  const turn = () => lines.push({ depth, tokens: [] });
  tokens.forEach((token, place) => {
    const line = () => lines[lines.length - 1].tokens;
    if (token === "{" || token === "[") {
      line().push(["", token]);
      depth++;
      if (!"}]".includes(tokens[place + 1])) turn();
    } else if (token === "}" || token === "]") {
      depth--;
      if (!"{[".includes(tokens[place - 1])) turn();
      line().push(["", token]);
    } else if (token === ",") {
      line().push(["", token]);
      turn();
    } else if (token === ":") line().push(["", ": "]);
    else line().push([token[0] === '"' ? (tokens[place + 1] === ":" ? "key" : "string") : /[tfn]/.test(token[0]) ? "word" : "number", token]);
  });
  return lines;
}

/** The tokens of what is JSON. The end of a string is looked for by hand: an expression overflows on some megabytes. */
function tokensOf(text) {
  const tokens = [];
  TOKEN.lastIndex = 0;
  for (let match = TOKEN.exec(text); match; match = TOKEN.exec(text)) {
    if (match[0] === '"') TOKEN.lastIndex = endOfString(text, match.index);
    tokens.push(text.slice(match.index, TOKEN.lastIndex));
  }
  return tokens;
}

function endOfString(text, start) {
  let at = start + 1;
  while (text[at] !== '"') at += text[at] === "\\" ? 2 : 1;
  return at + 1;
}
