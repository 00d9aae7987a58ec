// @ts-check
/**
 * What all panels over the steps share: a head with title and readout, plotly axes over a canvas, the crosshair, and
 * the way from a drag to a new view. A panel's own file says what to draw (a `PanelSpec`).
 */

import { Chart } from "../chart.js";
import { h, setText } from "../dom.js";
import { columnAt, within } from "../series.js";
import { colours } from "../theme.js";
import { visibleRange } from "../visible.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("../series.js").Span} Span */
/** @typedef {import("../theme.js").Colours} Colours */
/** @typedef {{left: number, top: number, width: number, height: number}} Area the plot, in pixels of the canvas */
/**
 * @typedef {object} Scene
 * @property {State} state @property {import("../series.js").Table} table @property {Span} span
 * @property {[number, number]} range @property {Colours} colours @property {Area} area
 */
/** @typedef {{label: string, value: string, tone?: string}} Reading */
/**
 * @typedef {object} PanelSpec
 * @property {string} id @property {string} title
 * @property {string} [hint] what the chart shows, for those who cannot see it
 * @property {boolean} [steps] label the steps below
 * @property {boolean} [image] the canvas is the picture: no lines over it
 * @property {(scene: Scene) => import("../chart.js").Axis} axis
 * @property {(scene: Scene) => object[]} traces
 * @property {(context: CanvasRenderingContext2D, scene: Scene, x: (step: number) => number) => void} [paint]
 * @property {(state: State, at: number, y: number | null) => Reading[]} readout of one column; y is 0..1 from the top,
 *   where a pointer is
 * @property {Node[]} [controls]
 */
/**
 * @typedef {object} Context what parts get to work with
 * @property {() => State} state @property {(message: import("../state.js").Message) => void} send
 * @property {import("../pacer.js").Pacer} pacer @property {import("../actions.js").Actions} actions
 */

export const NARROW = matchMedia("(max-width: 760px)");
const COARSE = matchMedia("(pointer: coarse)");

/** The same left and right margins everywhere keep the steps of all panels one above the other. */
const marginFor = (/** @type {boolean | undefined} */ steps) => ({
  left: NARROW.matches ? 76 : 196,
  right: NARROW.matches ? 10 : 22,
  top: 6,
  bottom: steps || NARROW.matches ? 20 : 6,
});

export class Panel {
  /** @param {Context} context @param {PanelSpec} spec */
  constructor(context, spec) {
    this.context = context;
    this.spec = spec;
    this.readings = h("dl", { className: "readings" });
    this.plot = h("div", { className: "plot" });
    this.canvas = h("canvas", { className: "underlay", "aria-hidden": "true" });
    this.crosshair = h("div", { className: "crosshair", hidden: true });
    this.field = h("div", { className: "field" }, this.canvas, this.plot, this.crosshair);
    const head = h("header", { className: "panel-head" }, h("h2", {}, spec.title), this.readings, spec.controls ?? []);
    this.element = h(
      "section",
      { className: `panel panel-${spec.id}`, "aria-label": spec.hint ?? spec.title },
      head,
      this.field,
    );
    this.chart = new Chart(this.plot, {
      zoom: (range) => context.actions.zoom(range),
      panning: (range) => this.moves && context.send({ type: "panning", range }),
      reset: () => context.actions.reset(),
    });
    /** @type {State | null} */ this.shown = null;
    /** @type {number | null} */ this.pointer = null;
    this.moves = false; // a drag with shift moves along the steps; one without marks a range and moves nothing yet
    this.watchPointer();
    context.pacer.add(this, () => this.draw());
    this.size = { width: 0, height: 0 };
    this.resizes = new ResizeObserver(() => this.resized());
    this.resizes.observe(this.field);
  }

  resized() {
    this.size = { width: this.field.clientWidth, height: this.field.clientHeight };
    this.mark(true);
  }

  /** @param {boolean} [urgent] */
  mark(urgent = false) {
    this.context.pacer.mark(this, urgent);
  }

  /** @returns {Area} */
  area() {
    const margin = marginFor(this.spec.steps);
    return {
      left: margin.left,
      top: margin.top,
      width: Math.max(1, this.size.width - margin.left - margin.right),
      height: Math.max(1, this.size.height - margin.top - margin.bottom),
    };
  }

  /** @param {State} state @returns {Scene} */
  scene(state) {
    const table = state.view.table;
    const visible = visibleRange(state);
    const range = /** @type {[number, number]} */ (
      visible ? [visible[0] - table.width / 2, visible[1] + table.width / 2] : [0, 100]
    );
    return { state, table, span: within(table, range), range, colours: colours(), area: this.area() };
  }

  /** Called with every new state; only marks what has to be drawn again. @param {State} state */
  update(state) {
    const before = this.shown;
    this.shown = state;
    const urgent = before?.route !== state.route || before?.view.loading !== state.view.loading;
    if (
      !before ||
      urgent ||
      before.view.table !== state.view.table ||
      before.events !== state.events ||
      before.run?.layers !== state.run?.layers
    ) {
      this.mark(urgent);
    } else if (before.panning !== state.panning) {
      this.paint(this.scene(state));
      this.mark();
    }
    if (
      !before ||
      before.cursor !== state.cursor ||
      before.view.table !== state.view.table ||
      before.panning !== state.panning
    )
      this.point(state);
  }

  draw() {
    const state = this.shown;
    if (!this.size.width || !state) return;
    const scene = this.scene(state);
    const margin = marginFor(this.spec.steps);
    this.paint(scene);
    this.chart
      .draw({
        traces: this.spec.traces(scene),
        range: scene.range,
        y: this.spec.axis(scene),
        grid: !this.spec.image,
        ticks: margin.bottom > 10,
        margin,
        colours: scene.colours,
        touch: COARSE.matches,
      })
      .catch((error) => this.context.send({ type: "notice", text: error.message }));
    this.point(state);
  }

  /** @param {Scene} scene */
  paint(scene) {
    if (!this.spec.paint) return;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(this.size.width * ratio), Math.round(this.size.height * ratio)];
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const pen = this.canvas.getContext("2d");
    if (!pen) return;
    const { left, top, width: across, height: down } = scene.area;
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, this.size.width, this.size.height);
    pen.save();
    pen.beginPath();
    pen.rect(left, top, across, down);
    pen.clip();
    const scale = across / (scene.range[1] - scene.range[0]);
    this.spec.paint(pen, scene, (step) => left + (step - scene.range[0]) * scale);
    pen.restore();
  }

  /**
   * Puts the crosshair and the readings where the cursor is; without one, the readings are the newest.
   * @param {State} state
   */
  point(state) {
    const { table } = state.view;
    const scene = this.scene(state);
    const at = state.cursor === null ? scene.span.to - 1 : columnAt(table, state.cursor);
    const x =
      state.cursor === null
        ? -1
        : ((state.cursor - scene.range[0]) / (scene.range[1] - scene.range[0])) * scene.area.width;
    this.crosshair.hidden = !(x >= 0 && x <= scene.area.width);
    if (!this.crosshair.hidden) this.crosshair.style.transform = `translateX(${Math.round(scene.area.left + x)}px)`;
    this.read(
      at >= 0 && table.first.length ? this.spec.readout(state, at, state.cursor === null ? null : this.pointer) : [],
    );
  }

  /** @param {Reading[]} readings */
  read(readings) {
    while (this.readings.children.length > readings.length) this.readings.lastElementChild?.remove();
    readings.forEach(({ label, value, tone = "" }, at) => {
      const row = this.readings.children[at] ?? this.readings.appendChild(h("div", {}, h("dt"), h("dd")));
      row.className = tone;
      setText(row.children[0], label);
      setText(row.children[1], value);
    });
  }

  watchPointer() {
    /** @param {PointerEvent} event */
    const follow = (event) => {
      const box = this.field.getBoundingClientRect();
      const area = this.area();
      if (!this.shown) return;
      const { range } = this.scene(this.shown);
      const share = (event.clientX - box.left - area.left) / area.width;
      this.pointer = (event.clientY - box.top - area.top) / area.height;
      if (share < 0 || share > 1) return this.leave();
      const step = Math.round(range[0] + share * (range[1] - range[0]));
      this.context.actions.point(step);
      if (this.shown?.cursor === step) this.point(this.shown);
    };
    this.field.addEventListener("pointermove", follow);
    this.field.addEventListener("pointerdown", (event) => {
      follow(event);
      this.moves = event.shiftKey;
      if (event.pointerType !== "touch") this.hold();
    });
    this.field.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && this.leave());
  }

  leave() {
    this.pointer = null;
    this.context.actions.point(null);
  }

  /** A drag goes on inside plotly: drawing now would tear it away. */
  hold() {
    this.context.pacer.pause(this, true);
    window.addEventListener("pointerup", () => setTimeout(() => this.context.pacer.pause(this, false), 0), {
      once: true,
      capture: true,
    });
  }

  destroy() {
    this.resizes.disconnect();
    this.context.pacer.remove(this);
    this.chart.destroy();
  }
}

/** The steps at which the run went on from a checkpoint. @param {State} state @returns {number[]} */
export function restartSteps(state) {
  const attempts = (state.run?.attempts ?? []).filter(({ number }) => number > 1).map((attempt) => attempt.start_step);
  const events = state.events.filter(({ kind }) => kind === "restart").map(({ step }) => step);
  return [...new Set([...attempts, ...events])];
}

/**
 * Dashed bars over the full height where the run was restarted.
 * @param {CanvasRenderingContext2D} pen @param {Scene} scene @param {(step: number) => number} x
 */
export function drawRestarts(pen, { state, area, colours: { restart } }, x) {
  pen.strokeStyle = restart;
  pen.lineWidth = 1;
  pen.setLineDash([4, 3]);
  for (const step of restartSteps(state)) {
    pen.beginPath();
    pen.moveTo(Math.round(x(step)) + 0.5, area.top);
    pen.lineTo(Math.round(x(step)) + 0.5, area.top + area.height);
    pen.stroke();
  }
  pen.setLineDash([]);
}
