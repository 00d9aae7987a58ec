// @ts-check
/** What the page has to say: the banner over the page, the badge of the connection, and toasts for new alerts. */

import { h, icon, setText } from "../dom.js";
import { formatCount, formatDuration } from "../format.js";
import { silence, STALE_AFTER } from "../state.js";

/** @typedef {import("../state.js").State} State */

/** The state of the connection in words, or "" while all is well. @param {State} state */
export function linkWords(state) {
  const { phase, retryAt, reason } = state.link;
  const quiet = silence(state);
  const seen = quiet === null ? "" : `; what you see is ${formatDuration(Math.round(quiet))} old`;
  const wait = Math.max(1, Math.ceil(retryAt - state.now));
  if (phase === "waiting") return `Connection lost${reason ? ` (${reason})` : ""}; reconnecting in ${wait} s${seen}`;
  if (phase === "connecting" && quiet !== null) return `Connection lost; reconnecting now${seen}`;
  if (phase === "open" && quiet !== null && quiet > STALE_AFTER)
    return `Stale: the server has said nothing for ${formatDuration(Math.round(quiet))}`;
  return "";
}

export class Banner {
  /**
   * @param {{actions: import("../actions.js").Actions, send: (message: import("../state.js").Message) => void}} context
   */
  constructor({ actions, send }) {
    this.text = h("span");
    this.now = h("button", { className: "quiet small", onClick: () => actions.reconnect() }, "Reconnect now");
    this.close = h(
      "button",
      { className: "quiet small", onClick: () => send({ type: "notice", text: "" }) },
      "Dismiss",
    );
    this.element = h(
      "div",
      { className: "banner", role: "status", hidden: true },
      icon("warning"),
      this.text,
      this.now,
      this.close,
    );
  }

  /** @param {State} state */
  update(state) {
    const lost = linkWords(state);
    const text = lost || (state.problem ? "" : state.notice); // a problem has the whole page to itself
    this.element.hidden = !text || state.login === "needed";
    setText(this.text, text);
    this.now.hidden = !lost;
    this.close.hidden = Boolean(lost);
  }
}

/** Live, stale or lost, as word and shape. */
export class LinkBadge {
  constructor() {
    this.word = h("span");
    this.element = h("span", { className: "link" }, h("span", { className: "dot", "aria-hidden": "true" }), this.word);
  }

  /** @param {State} state */
  update(state) {
    const { phase } = state.link;
    const quiet = silence(state) ?? 0;
    const word =
      phase === "open" ? (quiet > STALE_AFTER ? "stale" : "live") : phase === "waiting" ? "disconnected" : "connecting";
    setText(this.word, word);
    this.element.className = `link link-${word}`;
  }
}

export class Toasts {
  /**
   * @param {{actions: import("../actions.js").Actions, send: (message: import("../state.js").Message) => void}} context
   */
  constructor({ actions, send }) {
    this.actions = actions;
    this.send = send;
    this.element = h("div", {
      className: "toasts",
      role: "region",
      "aria-live": "assertive",
      "aria-label": "New alerts",
    });
    /** @type {import("../state.js").Toast[]} */ this.shown = [];
    /** @type {Map<number, HTMLElement>} */ this.items = new Map();
  }

  /** @param {State} state */
  update({ toasts }) {
    if (toasts === this.shown) return;
    this.shown = toasts;
    const ids = new Set(toasts.map(({ id }) => id));
    for (const [id, item] of this.items) if (!ids.has(id)) (item.remove(), this.items.delete(id));
    for (const { id, alert } of toasts) if (!this.items.has(id)) this.show(id, alert);
  }

  /** @param {number} id @param {import("../state.js").Alert} alert */
  show(id, alert) {
    const close = () => this.send({ type: "dismiss", id });
    const item = h(
      "div",
      { className: `toast ${alert.severity}` },
      icon(alert.severity),
      h("div", {}, h("strong", {}, alert.title), h("p", {}, alert.text)),
      h(
        "div",
        { className: "toast-actions" },
        h(
          "button",
          { className: "quiet small", onClick: () => (this.actions.jump(alert.first_step), close()) },
          `Show step ${formatCount(alert.first_step)}`,
        ),
        h("button", { className: "quiet small", onClick: close }, "Dismiss"),
      ),
    );
    this.items.set(id, item);
    this.element.append(item);
    setTimeout(close, 20_000);
  }
}
