// Elements without markup: whatever a record says becomes a text node, and nothing else.

const SVG = "http://www.w3.org/2000/svg";
// What cannot be seen, or changes how other characters are shown: controls, direction overrides, zero-width signs, tags.
// Joiners (U+200C, U+200D) stay: scripts and emoji need them.
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\u{e0000}-\u{e007f}\p{Cs}]/gu;

/** An element: attributes by name, functions as listeners (`onclick`), null and false left out; children are nodes or text. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : words(value));
  }
  for (const child of children.flat(Infinity)) if (child !== null && child !== undefined && child !== false) element.append(child); // one by one: there may be more than a call takes
  return element;
}

/** Puts nodes or texts in the place of what an element holds. */
export function refill(element, children) {
  element.replaceChildren();
  return fill(element, {}, children);
}

/** A text with values of a record in it: phrase`failed at ${stage}`. */
export function phrase(parts, ...values) {
  return String.raw({ raw: parts }, ...values.map(words));
}

/** Any value of a record as text. String() fails on some: on a large integer as `parse` gives it, on an object that has a toString of its own. */
export function words(value) {
  return typeof value === "string" ? value : JSON.stringify(value) ?? "";
}

/** Text of a record, as nodes: unseen characters by their number, and what was searched for marked. */
export function said(value, find = null) {
  const text = words(value);
  const nodes = [];
  let last = 0;
  for (const match of text.matchAll(UNSEEN)) {
    nodes.push(found(text.slice(last, match.index), find));
    nodes.push(h("span", { class: "unseen", title: "a character that is not seen" }, unseen(match[0])));
    last = match.index + match[0].length;
  }
  nodes.push(found(text.slice(last), find));
  return nodes.flat();
}

function unseen(character) {
  return `U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
}

/** Text for an attribute or a title, where no element can stand. */
export function plain(text) {
  return words(text).replace(UNSEEN, (character) => `[${unseen(character)}]`);
}

function found(text, find) {
  if (!find || !text) return text ? [text] : [];
  const nodes = [];
  let last = 0;
  for (const match of text.matchAll(find)) {
    if (!match[0]) continue;
    nodes.push(text.slice(last, match.index), h("mark", {}, match[0]));
    last = match.index + match[0].length;
  }
  nodes.push(text.slice(last));
  return nodes.filter((node) => node !== "");
}

/** JSON, with integers that a number cannot hold kept as they are written. */
export function parse(text) {
  return JSON.parse(text, (key, value, context) =>
    typeof value === "number" && context && JSON.rawJSON && Number.isInteger(value) && !Number.isSafeInteger(value) && /^-?\d+$/.test(context.source)
      ? JSON.rawJSON(context.source)
      : value);
}

/** The JSON value of a text; undefined if it is none. */
export function parsed(text) {
  try {
    return parse(text);
  } catch {
    return undefined;
  }
}

export const count = (number) => Number(number).toLocaleString("en");

export const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** Asks the server. Throws an Error with `status` and `problems` where it refuses or is gone. */
export async function api(path, { method = "GET", body = undefined, signal = undefined } = {}) {
  const headers = { Authorization: `Bearer ${token()}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(`/api/${path}`, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body) });
  } catch (reason) {
    if (reason.name === "AbortError") throw reason;
    throw Object.assign(new Error("The server does not answer: is it still running in the terminal?"), { status: 0, problems: [] });
  }
  const text = await response.text();
  if (response.ok) return parse(text);
  const told = parsed(text) ?? {};
  throw Object.assign(new Error(told.error ?? `the server answered ${response.status}`), { status: response.status, problems: told.problems ?? [] });
}

// Kept by this host and port alone, so that a link to a trace opens in a new tab as well.
const KEY = "tracemill-token";

/** Takes the token out of the address, and says whether there was one. Call it before anything reads `location.hash`. */
export function takeToken() {
  const state = new URLSearchParams(location.hash.slice(1));
  if (!state.has("token")) return false;
  localStorage.setItem(KEY, state.get("token"));
  state.delete("token");
  history.replaceState(null, "", `${location.pathname}#${state}`);
  return true;
}

function token() {
  return (localStorage.getItem(KEY) ?? "").replace(/[^\w-]/g, "");
}
