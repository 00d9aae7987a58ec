// @ts-check
/**
 * The loss landscape of a run: the tape over the steps, what its probes say, the surface and the path of the weights.
 */

import { costWords, tapeCaption } from "../captions.js";
import { h, setText } from "../dom.js";
import { hasLandscape } from "../landscape.js";
import { Figure } from "./figure.js";
import { gaugeFigure } from "./landscape_gauge.js";
import { lineFigure } from "./landscape_line.js";
import { mapFigure, offPlaneFigure } from "./landscape_map.js";
import { SurfaceRequest } from "./landscape_request.js";
import { surfaceFigure } from "./landscape_surface.js";
import { tapePanel } from "./landscape_tape.js";
import { verdictFigure } from "./landscape_verdict.js";
import { Panel } from "./panel.js";

/** @typedef {import("../state.js").State} State */

export class LandscapeSection {
  /** @param {import("./panel.js").Context} context */
  constructor(context) {
    this.tape = new Panel(context, tapePanel());
    const relief = surfaceFigure(context);
    this.specs = [gaugeFigure(), verdictFigure(), relief, mapFigure()];
    const [gauge, verdict, surface, map] = this.specs.map((spec) => new Figure(context, spec));
    const [line, off] = [new Figure(context, lineFigure()), new Figure(context, offPlaneFigure())];
    this.figures = [line, gauge, verdict, surface, map, off];
    this.surface = surface;
    /** @type {State | null} */ this.shown = null;
    relief.watch(() => this.redrawSurface());
    this.request = new SurfaceRequest(context);
    surface.element.append(this.request.element);
    map.element.append(off.element);
    this.caption = h("p", { className: "caption tape-caption" });
    this.cost = h("span", { className: "small" });
    this.body = h(
      "div",
      { className: "landscape-body" },
      h("div", { className: "charts card tape-card" }, this.tape.element, this.caption),
      h(
        "div",
        { className: "figures three" },
        [line, gauge, verdict].map(({ element }) => card(element)),
      ),
      h(
        "div",
        { className: "figures two" },
        [surface, map].map(({ element }) => card(element)),
      ),
    );
    this.hint = h(
      "p",
      { className: "landscape-hint small" },
      "To see the loss around the weights here, give the hook a held-out loss: ",
      h("code", {}, "gradwatch.watch(..., probe=lambda model: loss on a held-out batch)"),
    );
    this.element = h(
      "section",
      { className: "landscape", "aria-label": "Loss landscape", hidden: true },
      h("header", { className: "landscape-head" }, h("h2", {}, "Loss landscape"), this.cost),
      this.hint,
      this.body,
    );
  }

  redrawSurface() {
    if (this.shown) this.update(this.shown, true);
    this.surface.mark(true);
  }

  /** @param {State} state with the steps that the charts show @param {boolean} [urgent] */
  update(state, urgent = false) {
    const before = this.shown;
    this.shown = state;
    const { data } = state.landscape;
    this.element.hidden = !data;
    if (!data) return;
    const some = hasLandscape(data);
    this.body.hidden = !some;
    this.hint.hidden = some;
    setText(this.cost, costWords(data.cost));
    if (!some) return;
    this.tape.update(state);
    if (before?.landscape.data !== data) this.tape.mark();
    if (before?.landscape.data !== data) this.tape.point(state);
    setText(this.caption, tapeCaption(data));
    if (urgent || before?.landscape !== state.landscape || before.run !== state.run)
      for (const spec of this.specs) spec.tell(state);
    for (const figure of this.figures) figure.update(state);
    this.request.update(state);
  }

  /** After a change of theme. */
  repaint() {
    this.tape.mark(true);
    for (const figure of this.figures) figure.mark(true);
  }

  destroy() {
    this.tape.destroy();
    for (const figure of this.figures) figure.destroy();
  }
}

/** @param {Element} element */
function card(element) {
  element.classList.add("card");
  return element;
}
