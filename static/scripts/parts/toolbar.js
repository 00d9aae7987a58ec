// @ts-check
/** Above the charts: which steps are shown, how finely, and the ways to others. */

import { h, setAttribute, setText } from "../dom.js";
import { formatCount, formatSteps } from "../format.js";
import { cursorInView, visibleRange } from "../visible.js";

/** @typedef {import("../state.js").State} State */
const SPANS = [200, 1_000, 10_000];

export class Toolbar {
  /** @param {import("./panel.js").Context} context */
  constructor({ actions }) {
    this.range = h("span", { className: "range" });
    this.detail = h("span", { className: "detail" });
    this.follow = h(
      "button",
      {
        className: "switch",
        role: "switch",
        "aria-checked": "true",
        title: "Keep the newest steps in view (f)",
        onClick: () => actions.follow(),
      },
      h("span", { className: "knob", "aria-hidden": "true" }),
      "Follow",
    );
    this.all = h("button", { className: "segment", onClick: () => actions.reset() }, "All");
    this.spans = SPANS.map((span) =>
      h(
        "button",
        {
          className: "segment",
          title: `Follow the last ${formatCount(span)} steps`,
          onClick: () => actions.span(span),
        },
        formatSpan(span),
      ),
    );
    this.reset = h(
      "button",
      { className: "quiet", title: "Show the whole run (0, or double click)", onClick: () => actions.reset() },
      "Reset zoom",
    );
    const move = (/** @type {string} */ sign, /** @type {string} */ label, /** @type {() => void} */ act) =>
      h("button", { className: "quiet square", "aria-label": label, title: label, onClick: act }, sign);
    this.export = h("a", { className: "button quiet", download: "" }, "CSV");
    this.element = h(
      "div",
      { className: "toolbar" },
      h("div", { className: "where" }, this.range, this.detail),
      h(
        "div",
        { className: "moves", role: "group", "aria-label": "Move and zoom" },
        move("←", "Earlier steps", () => actions.pan(-0.5)),
        move("→", "Later steps", () => actions.pan(0.5)),
        move("−", "Zoom out", () => actions.scale(2)),
        move("+", "Zoom in", () => actions.scale(0.5)),
        this.reset,
      ),
      h("div", { className: "segments", role: "group", "aria-label": "Follow the last steps" }, this.all, this.spans),
      this.follow,
      this.export,
    );
  }

  /** @param {State} state */
  update(state) {
    const range = visibleRange(state);
    if (state.route.name !== "run") return;
    const { view, run } = state.route;
    const { last } = state.view.table;
    const end = view.mode === "range" || !last.length ? Infinity : last[last.length - 1];
    setText(
      this.range,
      range ? capital(formatSteps(Math.round(range[0]), Math.min(end, Math.round(range[1])))) : "No steps yet",
    );
    const { width } = state.view.table;
    const at = cursorInView(state);
    const cursor = at === null ? "" : ` · at ${formatCount(at)}`;
    setText(
      this.detail,
      state.view.loading ? "loading…" : (width === 1 ? "every step" : `${formatCount(width)} steps per point`) + cursor,
    );
    this.element.classList.toggle("loading", state.view.loading);
    setAttribute(this.follow, "aria-checked", String(view.mode !== "range"));
    setAttribute(this.all, "aria-pressed", String(view.mode === "all"));
    this.spans.forEach((button, at) =>
      setAttribute(button, "aria-pressed", String(view.mode === "span" && view.span === SPANS[at])),
    );
    this.reset.disabled = view.mode === "all";
    setAttribute(this.export, "href", `api/runs/${encodeURIComponent(run)}/export?format=csv`);
  }
}

/** @param {number} span */
const formatSpan = (span) => (span < 1000 ? String(span) : `${span / 1000}k`);

/** @param {string} text */
const capital = (text) => text[0].toUpperCase() + text.slice(1);
