// @ts-check
/** A small form that asks the running training for a surface, and what became of it. */

import { planeName } from "../captions.js";
import { h, setText } from "../dom.js";
import { formatCount } from "../format.js";
import { pendingSurface, pointsOf, refusalOf } from "../landscape.js";

/** @typedef {import("../state.js").State} State */

const PLANES = ["update", "trajectory", "random"];
const SIDES = [9, 17, 33];

export class SurfaceRequest {
  /** @param {import("./panel.js").Context} context */
  constructor({ actions }) {
    this.plane = h(
      "select",
      {},
      PLANES.map((plane) => h("option", { value: plane }, planeName(plane))),
    );
    this.levels = h(
      "select",
      {},
      SIDES.map((side) => h("option", { value: side }, `${side} × ${side}`)),
    );
    this.levels.value = "17";
    this.seed = h("input", {
      type: "number",
      min: "0",
      max: "4294967295",
      step: "1",
      value: "0",
      inputmode: "numeric",
    });
    this.button = h("button", { type: "submit", className: "primary" }, "Compute a surface");
    this.progress = h("progress", { "aria-label": "Points of the surface asked for", hidden: true });
    this.words = h("span", { className: "request-words", role: "status" });
    const seedLabel = h("label", {}, "Seed", this.seed);
    const onlyRandom = () => (seedLabel.hidden = this.plane.value !== "random");
    this.plane.addEventListener("change", onlyRandom);
    onlyRandom();
    this.element = h(
      "form",
      {
        className: "surface-request",
        "aria-label": "Ask for a surface",
        onSubmit: (/** @type {Event} */ event) => {
          event.preventDefault();
          const seed = this.plane.value === "random" ? Number(this.seed.value) || 0 : 0;
          actions.feed.landscape.ask({ plane: this.plane.value, levels: Number(this.levels.value), seed });
        },
      },
      h("label", {}, "Plane", this.plane),
      h("label", {}, "Detail", this.levels),
      seedLabel,
      this.button,
      h("div", { className: "request-state" }, this.words, this.progress),
    );
  }

  /** @param {State} state */
  update({ run, landscape }) {
    const refusal = refusalOf(run);
    const pending = pendingSurface(landscape);
    const busy = landscape.asked !== null && landscape.asked.phase !== "refused" && !refusal;
    for (const field of [this.plane, this.levels, this.seed]) field.disabled = Boolean(refusal) || busy;
    this.button.disabled = Boolean(refusal) || busy;
    this.button.title = refusal;
    setText(this.words, refusal || requestWords(landscape));
    this.words.classList.toggle("problem", landscape.asked?.phase === "refused" && !refusal);
    this.progress.hidden = !pending;
    if (pending) Object.assign(this.progress, { max: pointsOf(pending), value: pending.computed });
  }
}

/** What became of the surface that was asked for. Pure. @param {import("../landscape.js").LandscapeState} landscape */
export function requestWords(landscape) {
  const { asked } = landscape;
  if (!asked) return "";
  if (asked.phase === "refused") return asked.text;
  if (asked.phase === "sending") return "Asking…";
  const pending = pendingSurface(landscape);
  return pending
    ? `${formatCount(pending.computed)} of ${formatCount(pointsOf(pending))} points`
    : "Asked; the training takes it up within its budget.";
}
