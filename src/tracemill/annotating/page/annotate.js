// One pair after another: shown, judged by a key, saved by the server before the next one comes.

import { renderMessages } from "./conversation.js";
import { api, count, h, refill, said, takeToken } from "./dom.js";

const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", t: "tie", s: "skip" };
const REASONS = ["right call or arguments", "keeps to the policy", "asks first", "tells the truth", "clearer", "better thought through"];
const SAVED = { left: "Saved: left.", right: "Saved: right.", tie: "Saved: a tie.", skip: "Skipped." };
const SCROLLS = "Arrows scroll here. Esc goes back to where they judge.";
const SETTLE = 250; // milliseconds before a new pair can be judged: the second of two hasty presses is not meant for it

const $ = (id) => document.getElementById(id);
const main = $("main");
const note = h("textarea", { id: "note", rows: "1", maxlength: "4000", placeholder: "why, in your words", "aria-label": "Why, in your words" });
const reasons = REASONS.map((reason, at) =>
  h("button", { class: "button", type: "button", "aria-pressed": "false", onclick: (event) => toggle(event.currentTarget) },
    h("kbd", {}, String(at + 1)), ` ${reason}`));
$("why").append(...reasons, h("label", {}, h("kbd", {}, "r"), note));
const retry = h("button", { class: "button", type: "button", onclick: () => load() }, h("kbd", {}, "Enter"), " try again");
let view = {};
let rest = "again"; // the state that stands where nothing comes of what was asked
let settling = 0;
let clicked = false; // the focus is where the mouse has put it

takeToken();
addEventListener("hashchange", () => takeToken() && load()); // the program was started again, and its new address opened here
addEventListener("pointerdown", () => { clicked = true; });
document.addEventListener("keydown", pressed);
for (const button of document.querySelectorAll("[data-press]")) button.addEventListener("click", () => judge(button.dataset.press));
$("undo").addEventListener("click", undo);
load();

async function load(message = "") {
  await ask(() => api("next"), message);
}

async function judge(press) {
  if (main.dataset.state !== "ready" || (view.broken && press !== "skip")) return;
  const body = { ticket: view.ticket, press, reasons: REASONS.filter((_, at) => isOn(reasons[at])), note: note.value.trim() };
  await ask(() => api("judge", { method: "POST", body }), SAVED[press]);
}

async function undo() {
  const last = view.progress?.last;
  if (!last || !["ready", "end"].includes(main.dataset.state)) return;
  await ask(() => api("undo", { method: "POST", body: { act: last.act } }), "Taken back. Judge it again.");
}

/** Asks, and shows what comes. Where another window was faster, says so and goes on from what stands. */
async function ask(request, message) {
  clearTimeout(settling);
  main.dataset.state = "loading";
  try {
    const next = await request();
    if (next.trouble) return lost(next.trouble);
    show(next);
    say(message);
  } catch (reason) {
    if (reason.status === 409) return load(reason.message);
    const told = [reason.message, ...(reason.problems ?? [])].join(" ");
    if (rest === "again") return lost(told);
    main.dataset.state = rest;
    say(told, true);
  }
}

/** What comes next is not known, for a reason that may pass. */
function lost(why) {
  view = {};
  main.dataset.ticket = "";
  main.dataset.state = rest = "again";
  $("undo").disabled = true;
  pose("What comes next?", [retry]);
  say(why, true);
  retry.focus();
}

/** The question, and what stands in the place of a pair. */
function pose(question, instead) {
  for (const button of document.querySelectorAll("[data-press]")) button.disabled = view.ticket === undefined || Boolean(view.broken && button.dataset.press !== "skip");
  $("shared").hidden = $("sides").hidden = instead.length > 0;
  $("end").hidden = !instead.length;
  $("end").classList.toggle("error", Boolean(view.broken));
  refill($("end"), instead);
  $("question").textContent = question;
  home();
}

/** Where keys judge. */
function home() {
  $("question").focus({ preventScroll: true });
}

function say(text, failed = false) {
  $("status").replaceChildren(...said(text));
  $("status").classList.toggle("error", failed);
  if (failed) $("status").scrollIntoView({ block: "nearest" }); // a narrow page may have been scrolled far beyond it
}

function show(next) {
  view = next;
  const { annotator, judged, skipped, left, last } = view.progress;
  $("progress").replaceChildren(...said(annotator), ` · ${count(judged)} judged · ${count(left)} to do${skipped ? ` · ${count(skipped)} skipped` : ""}`);
  $("undo").disabled = !last;
  reasons.forEach((button, at) => button.setAttribute("aria-pressed", String((view.reasons ?? []).includes(REASONS[at]))));
  note.value = view.note ?? "";
  const some = view.ticket !== undefined;
  rest = some ? "ready" : "end";
  main.dataset.ticket = view.ticket ?? "";
  showProblems(view.problems ?? []);
  if (view.prompt) draw();
  const instead = view.broken ?? "Nothing is left for you. Thank you! What another has open now may still come: reload the page later.";
  pose(!some ? "All done" : view.broken ? "This pair cannot be shown" : view.whole ? "Which way of going on is better?" : "Which next message is better?",
    view.prompt ? [] : said(instead));
  if (some) settle();
  else main.dataset.state = "end";
}

/** Replaced only where they are others: they are read out. */
function showProblems(problems) {
  const next = refill($("problems").cloneNode(false), problems.map((one) => h("p", { class: "note bad" }, said(one))));
  if (!next.isEqualNode($("problems"))) $("problems").replaceChildren(...next.childNodes);
}

function settle() {
  main.dataset.state = "settling";
  settling = setTimeout(() => { main.dataset.state = "ready"; }, SETTLE);
}

/** Shows the pair. One that cannot be drawn is like one that cannot be read: to be passed over. */
function draw() {
  try {
    $("shared").hidden = $("sides").hidden = false; // what is hidden cannot be scrolled
    showPair();
  } catch (reason) {
    view = { ...view, prompt: undefined, broken: `This page cannot draw it: ${reason.message}` };
  }
}

function showPair() {
  const options = { tools: view.tools };
  const start = view.prompt.length;
  $("shared").replaceChildren(renderMessages(view.prompt, { ...options, prefix: "m" }));
  for (const side of ["left", "right"]) {
    const list = renderMessages(view[side], { ...options, start, prefix: side, open: !view.whole });
    list.setAttribute("aria-label", side);
    $(side).querySelector(".said").replaceChildren(list);
    $(side).scrollTop = 0;
  }
  scrollTo(0, 0);
  $("shared").scrollTop = $("shared").scrollHeight;
}

function toggle(button) {
  button.setAttribute("aria-pressed", String(!isOn(button)));
}

function isOn(button) {
  return button.getAttribute("aria-pressed") === "true";
}

/** Keys judge, except where they mean something already: in a text, with a modifier, arrows where they scroll, and held down.
 *  They scroll in what Tab came to; in what was clicked only if something scrolls that way, for who clicks to read on means to judge. */
function pressed(event) {
  const { key, target } = event;
  if (key === "Tab") clicked = false;
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (target === note) return leave(event);
  const box = key.startsWith("Arrow") && target.closest(".scroller");
  if (box && (!clicked || scrolls(box, key))) return $("status").textContent === SCROLLS || say(SCROLLS);
  const act = action(key.length === 1 ? key.toLowerCase() : key); // Caps Lock or not
  if (!act) return;
  event.preventDefault();
  if (!event.repeat || "jk".includes(key)) act();
}

function scrolls(box, key) {
  return key === "ArrowLeft" || key === "ArrowRight" ? box.scrollWidth > box.clientWidth : box.scrollHeight > box.clientHeight;
}

function action(key) {
  if (key === "Enter") return main.dataset.state === "again" && document.activeElement.tagName !== "BUTTON" && load;
  if (KEYS[key]) return () => judge(KEYS[key]);
  if (/^[1-9]$/.test(key) && reasons[key - 1]) return () => toggle(reasons[key - 1]);
  return {
    u: undo,
    r: () => note.focus(),
    j: () => $("shared").scrollBy(0, 80),
    k: () => $("shared").scrollBy(0, -80),
    o: unfold,
    Escape: home,
  }[key];
}

function leave(event) {
  if (event.key !== "Escape" && (event.key !== "Enter" || event.shiftKey)) return;
  event.preventDefault();
  home();
}

function unfold() {
  const folds = [...main.querySelectorAll("details")];
  const open = folds.some((fold) => !fold.open);
  for (const fold of folds) fold.open = open;
}
