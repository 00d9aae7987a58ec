// @ts-check
/** The alerts of a run: what went wrong, where first, how often; a click shows the step. */

import { h, icon } from "../dom.js";
import { formatCount, formatSteps } from "../format.js";

/** @typedef {import("../state.js").Alert} Alert */
const MANY = 4;

export class AlertsPanel {
  /** @param {import("./panel.js").Context} context */
  constructor({ actions, send }) {
    this.actions = actions;
    this.send = send;
    this.list = h("ul", { className: "alerts" });
    this.count = h("span", { className: "count" });
    this.element = h(
      "section",
      { className: "card alerts-card", "aria-label": "Alerts" },
      h("header", {}, h("h2", {}, "Alerts"), this.count),
      this.list,
    );
    /** @type {Alert[] | null} */ this.shown = null;
  }

  /** @param {import("../state.js").State} state */
  update(state) {
    if (state.alerts === this.shown) return;
    this.shown = state.alerts;
    const open = state.alerts.filter((alert) => alert.state === "open").length;
    this.count.textContent = open ? `${open} open` : "";
    const none = h(
      "li",
      { className: "empty" },
      "No alerts. Non-finite gradients and explosions would show here, with the layer that went first.",
    );
    this.list.replaceChildren(...(state.alerts.length ? state.alerts.map((alert) => this.item(alert)) : [none]));
  }

  /** @param {Alert} alert */
  item(alert) {
    const open = alert.state === "open";
    const more = alert.layers.length - MANY;
    const layers = alert.layers.slice(0, MANY).map((name) => h("li", { title: name }, name));
    return h(
      "li",
      { className: `alert ${alert.severity} ${alert.state}` },
      h(
        "button",
        {
          className: "alert-jump",
          title: "Show this step in the charts",
          onClick: () => {
            this.actions.jump(alert.first_step);
            this.send({ type: "dismiss", id: alert.id });
          },
        },
        icon(open ? alert.severity : "acknowledged"),
        h("strong", {}, alert.title),
        h("span", { className: "severity" }, open ? alert.severity : "acknowledged"),
      ),
      h("p", {}, alert.text),
      alert.layers.length
        ? h(
            "ul",
            { className: "layer-names", "aria-label": "Layers, the first to go first" },
            layers,
            more > 0 ? h("li", {}, `and ${more} more`) : null,
          )
        : null,
      h(
        "footer",
        {},
        h("span", {}, `${formatCount(alert.count)} × · ${formatSteps(alert.first_step, alert.last_step)}`),
        open
          ? h("button", { className: "quiet small", onClick: () => this.actions.acknowledge(alert.id) }, "Acknowledge")
          : null,
      ),
    );
  }
}
