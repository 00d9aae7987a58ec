// @ts-check
/** What the hook has to say of this training: clipping that is not wired right, an overflow, rows that were lost. */

import { eventTitle, hookNotes } from "../clip.js";
import { h, icon } from "../dom.js";
import { formatCount } from "../format.js";

const MOST = 5;

export class HookNotes {
  /** @param {import("./panel.js").Context} context */
  constructor({ actions }) {
    this.actions = actions;
    this.list = h("ul", { className: "alerts" });
    this.element = h(
      "section",
      { className: "card notes-card", "aria-label": "Notes of the hook", hidden: true },
      h("header", {}, h("h2", {}, "Notes of the hook")),
      this.list,
    );
    /** @type {import("../state.js").Event[] | null} */ this.shown = null;
  }

  /** @param {import("../state.js").State} state */
  update({ events }) {
    if (events === this.shown) return;
    this.shown = events;
    const notes = hookNotes(events);
    this.element.hidden = !notes.length;
    const more = notes.length - MOST;
    this.list.replaceChildren(
      ...notes.slice(0, MOST).map((note) => this.item(note)),
      ...(more > 0 ? [h("li", { className: "empty" }, `and ${formatCount(more)} earlier`)] : []),
    );
  }

  /** @param {ReturnType<typeof hookNotes>[number]} note */
  item({ event, count }) {
    return h(
      "li",
      { className: "alert open warning" },
      h(
        "button",
        {
          className: "alert-jump",
          title: "Show this step in the charts",
          onClick: () => this.actions.jump(event.step),
        },
        icon("warning"),
        h("strong", {}, eventTitle(event)),
      ),
      event.text ? h("p", {}, event.text) : null,
      h("footer", {}, h("span", {}, `${count > 1 ? `${formatCount(count)} × · ` : ""}step ${formatCount(event.step)}`)),
    );
  }
}
