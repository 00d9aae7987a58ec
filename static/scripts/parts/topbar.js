// @ts-check
/** The bar over every page: where one is, the connection, the theme, help. */

import { h, setText } from "../dom.js";
import { chooseTheme, chosenTheme, THEMES } from "../theme.js";
import { LinkBadge } from "./notices.js";

const KEYS = [
  ["f", "follow the newest steps, or stand still"],
  ["0", "show the whole run"],
  ["+ / −", "zoom in, zoom out"],
  ["← / →", "move the crosshair"],
  ["Shift ← / →", "move to earlier or later steps"],
  ["n / p", "next or previous event"],
  ["Esc", "let go of the crosshair"],
  ["/", "search runs"],
  ["t", "change the theme"],
  ["?", "this help"],
];
const MOUSE = [
  ["drag", "zoom to these steps"],
  ["Shift drag", "move along the steps"],
  ["double click", "show the whole run"],
];

export class TopBar {
  constructor() {
    this.crumbs = h("span", { className: "crumbs" });
    this.link = new LinkBadge();
    this.theme = h("button", { className: "quiet", title: "Theme (t)", onClick: () => this.nextTheme() });
    this.help = helpDialog();
    const ask = h(
      "button",
      { className: "quiet square", "aria-label": "Help", title: "Help (?)", onClick: () => this.help.showModal() },
      "?",
    );
    this.element = h(
      "header",
      { className: "topbar" },
      h("a", { className: "brand", href: "#/" }, "gradwatch"),
      this.crumbs,
      this.link.element,
      this.theme,
      ask,
      this.help,
    );
    this.nameTheme();
  }

  nextTheme() {
    chooseTheme(THEMES[(THEMES.indexOf(chosenTheme()) + 1) % THEMES.length]);
    this.nameTheme();
  }

  nameTheme() {
    const [first, ...rest] = chosenTheme();
    setText(this.theme, first.toUpperCase() + rest.join(""));
    this.theme.setAttribute("aria-label", `Theme: ${chosenTheme()}. Change it`);
  }

  /** @param {import("../state.js").State} state */
  update(state) {
    this.link.update(state);
    const run = state.route.name === "run" ? state.run : null;
    setText(this.crumbs, run ? [run.project, run.name || run.id].filter(Boolean).join(" / ") : "");
    this.link.element.hidden = state.login === "needed";
  }
}

function helpDialog() {
  const rows = (/** @type {string[][]} */ list) =>
    list.map(([key, text]) => h("div", {}, h("dt", {}, h("kbd", {}, key)), h("dd", {}, text)));
  const dialog = h(
    "dialog",
    { className: "help", "aria-label": "Help" },
    h("h2", {}, "Keys"),
    h("dl", {}, rows(KEYS)),
    h("h2", {}, "On the charts"),
    h("dl", {}, rows(MOUSE)),
    h("button", { className: "primary", onClick: () => dialog.close() }, "Close"),
  );
  return dialog;
}
