// A long list of which only what is seen stands in the page; the rest comes from the server when it is scrolled to.

import { h } from "./dom.js";

const HEIGHT = 66; // of a row in pixels, as in view.css
const PAGE = 100; // rows asked for at a time
const MOST = 250_000; // rows: browsers cannot make an element much higher

export class LongList {
  /**
   * @param element   the listbox
   * @param fetchPage async (from, limit) => {total, rows}
   * @param render    (row) => nodes
   * @param choose    (row, place, {opened}) => void; opened by Enter or a click, else merely come to
   */
  constructor(element, { fetchPage, render, choose }) {
    Object.assign(this, { element, fetchPage, render, choose, total: 0, at: -1, pages: new Map(), turn: 0 });
    this.space = h("li", { role: "presentation", class: "space" });
    element.append(this.space);
    element.addEventListener("scroll", () => requestAnimationFrame(() => this.draw()));
    element.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(element);
  }

  /** Forget all rows and begin with this page of them. */
  reset(first, from, { keep = false } = {}) {
    this.turn++;
    this.pages.clear();
    this.pages.set(Math.floor(from / PAGE), first.rows);
    this.total = Math.min(first.total, MOST);
    this.space.style.height = `${this.total * HEIGHT}px`;
    if (!keep) this.element.scrollTop = 0;
    if (this.at >= this.total) this.at = -1;
    this.draw();
  }

  row(place) {
    return this.pages.get(Math.floor(place / PAGE))?.[place % PAGE];
  }

  draw() {
    const first = Math.max(0, Math.floor(this.element.scrollTop / HEIGHT) - 4);
    const last = Math.min(this.total, first + Math.ceil(this.element.clientHeight / HEIGHT) + 9);
    for (let page = Math.floor(first / PAGE); page <= Math.floor(Math.max(first, last - 1) / PAGE) && this.total; page++) this.load(page);
    const rows = [];
    for (let place = first; place < last; place++) rows.push(this.option(place));
    this.element.replaceChildren(this.space, ...rows);
    if (this.at >= first && this.at < last) this.element.setAttribute("aria-activedescendant", `row-${this.at}`);
    else this.element.removeAttribute("aria-activedescendant");
  }

  option(place) {
    const row = this.row(place);
    const option = h("li", {
      role: "option", id: `row-${place}`, class: "row", "aria-selected": place === this.at ? "true" : "false",
      "aria-setsize": this.total, "aria-posinset": place + 1, "aria-busy": row ? null : "true", onclick: () => this.go(place, true),
    }, row ? this.render(row) : h("span", { class: "soft" }, "…"));
    option.style.top = `${place * HEIGHT}px`;
    return option;
  }

  async load(page) {
    if (this.pages.has(page)) return;
    this.pages.set(page, null); // it is on its way
    const turn = this.turn;
    try {
      const found = await this.fetchPage(page * PAGE, PAGE);
      if (turn !== this.turn) return;
      this.pages.set(page, found.rows);
      this.draw();
    } catch {
      if (turn === this.turn) this.pages.delete(page); // asked again when it is scrolled to again
    }
  }

  /** Come to a place; `opened` if it is to be read. */
  async go(place, opened = false) {
    if (!this.total) return;
    this.show(Math.min(Math.max(place, 0), this.total - 1));
    const turn = this.turn;
    for (let tries = 0; !this.row(this.at) && tries < 100 && turn === this.turn; tries++) await new Promise((done) => setTimeout(done, 20));
    const row = this.row(this.at);
    if (row && turn === this.turn) this.choose(row, this.at, { opened });
  }

  /** Mark a place, and scroll to where it is seen. */
  show(place) {
    this.at = place;
    const [top, seen] = [place * HEIGHT, this.element.clientHeight];
    if (place >= 0 && top < this.element.scrollTop) this.element.scrollTop = top;
    else if (place >= 0 && top + HEIGHT > this.element.scrollTop + seen) this.element.scrollTop = top + HEIGHT - seen;
    this.draw();
  }

  key(event) {
    const page = Math.max(1, Math.floor(this.element.clientHeight / HEIGHT) - 1);
    const to = {
      ArrowDown: this.at + 1, ArrowUp: Math.max(0, this.at - 1), PageDown: this.at + page, PageUp: Math.max(0, this.at - page),
      Home: 0, End: this.total - 1, Enter: Math.max(0, this.at), " ": Math.max(0, this.at),
    }[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.go(to, event.key === "Enter" || event.key === " ");
  }
}
