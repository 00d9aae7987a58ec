// @ts-check
/**
 * What the pictures of the landscape share: a head with title and controls, a plot with axes of its own over a canvas,
 * points that can be read one by one by pointer and keyboard, and a caption. A picture's own file says what to draw.
 */

import { Plot } from "../chart.js";
import { h, setText } from "../dom.js";
import { colours } from "../theme.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("../theme.js").Colours} Colours */
/** @typedef {{width: number, height: number}} Size of the plot's inside, in pixels */
/**
 * @typedef {object} Marks points to read, in the order of the arrow keys
 * @property {number[]} x @property {number[]} y on the axes as drawn (log10 on a log axis)
 * @property {(at: number) => string} words @property {number} [across] points in a row, where they form a grid
 * @property {number} [start] where the arrow keys begin; else at the last
 */
/**
 * @typedef {object} Drawn
 * @property {object[]} traces @property {import("../chart.js").Axis} x @property {import("../chart.js").Axis} y
 * @property {Marks} [marks] @property {(pen: CanvasRenderingContext2D, scale: Scale) => void} [paint] below the traces
 * @property {{traces: object[], z: import("../chart.js").Axis}} [space] drawn instead, in 3-D
 */
/** @typedef {{x: (value: number) => number, y: (value: number) => number}} Scale to pixels of the canvas */
/**
 * @typedef {object} FigureSpec
 * @property {string} id @property {string} title @property {string} hint for those who cannot see it
 * @property {Node} [heading] in place of the title
 * @property {import("../chart.js").Margin} margin @property {(Node | string)[]} [controls]
 * @property {(Node | string)[]} [lead]
 * @property {(state: State, size: Size, colours: Colours) => Drawn | null} draw null: there is nothing
 * @property {(state: State) => string} caption
 * @property {(state: State) => unknown[]} inputs drawn again when one changes
 */

export class Figure {
  /** @param {import("./panel.js").Context} context @param {FigureSpec} spec */
  constructor(context, spec) {
    this.context = context;
    this.spec = spec;
    this.plotElement = h("div", { className: "plot" });
    this.spaceElement = h("div", { className: "plot plot-space", hidden: true });
    this.canvas = h("canvas", { className: "underlay", "aria-hidden": "true" });
    this.ring = h("div", { className: "ring", hidden: true });
    this.field = h(
      "div",
      {
        className: "figure-field",
        tabindex: "0",
        role: "img",
        "aria-label": `${spec.hint}. Arrow keys read its points.`,
      },
      this.canvas,
      this.plotElement,
      this.spaceElement,
      this.ring,
    );
    this.readout = h("p", { className: "figure-readout", "aria-live": "polite" });
    this.caption = h("p", { className: "caption" });
    const head = h(
      "header",
      { className: "figure-head" },
      h("h3", {}, spec.heading ?? spec.title),
      spec.controls ?? [],
    );
    this.element = h(
      "section",
      { className: `figure figure-${spec.id}`, "aria-label": spec.title },
      head,
      spec.lead ?? [],
      this.field,
      this.readout,
      this.caption,
    );
    this.plot = new Plot(this.plotElement);
    this.space = new Plot(this.spaceElement);
    /** @type {State | null} */ this.shown = null;
    /** @type {unknown[]} */ this.inputs = [];
    /** @type {Drawn | null} */ this.drawn = null;
    /** @type {number | null} */ this.at = null;
    this.size = { width: 0, height: 0 };
    context.pacer.add(this, () => this.draw());
    this.resizes = new ResizeObserver(() => this.resized());
    this.resizes.observe(this.field);
    this.listen();
  }

  resized() {
    this.size = { width: this.field.clientWidth, height: this.field.clientHeight };
    this.mark(true);
  }

  /** @param {boolean} [urgent] */
  mark(urgent = false) {
    this.context.pacer.mark(this, urgent);
  }

  /** @param {State} state */
  update(state) {
    this.shown = state;
    const inputs = this.spec.inputs(state);
    const changed = inputs.length !== this.inputs.length || inputs.some((input, at) => input !== this.inputs[at]);
    this.inputs = inputs;
    setText(this.caption, this.spec.caption(state));
    if (changed) this.mark();
  }

  /** The plot's inside. @returns {Size} */
  inside() {
    const { left, right, top, bottom } = this.spec.margin;
    return { width: Math.max(1, this.size.width - left - right), height: Math.max(1, this.size.height - top - bottom) };
  }

  draw() {
    if (!this.shown) return;
    const theme = colours();
    const drawn = this.spec.draw(this.shown, this.inside(), theme);
    this.drawn = drawn;
    // What is empty takes no room, and gets it back here: its new size then draws it.
    this.field.classList.toggle("empty", !drawn);
    if (!this.size.width) return;
    this.plotElement.hidden = this.canvas.hidden = !drawn || Boolean(drawn.space);
    this.spaceElement.hidden = !drawn?.space;
    if (!drawn?.space) this.space.clear(); // browsers allow few 3-D contexts: an unseen one is given back
    const drawing = drawn?.space
      ? this.space.drawSpace(drawn.space.traces, { x: drawn.x, y: drawn.y, z: drawn.space.z }, theme)
      : drawn && this.plot.draw(drawn.traces, drawn, this.spec.margin, theme);
    drawing?.catch((error) => this.context.send({ type: "notice", text: error.message }));
    this.paint();
    this.point(this.at);
  }

  /** @returns {Scale} */
  scale() {
    const { left, top } = this.spec.margin;
    const { width, height } = this.inside();
    const [x, y] = [this.drawn?.x.range ?? [0, 1], this.drawn?.y.range ?? [0, 1]];
    return {
      x: (value) => left + ((value - x[0]) / (x[1] - x[0])) * width,
      y: (value) => top + ((y[1] - value) / (y[1] - y[0])) * height,
    };
  }

  paint() {
    const ratio = window.devicePixelRatio || 1;
    Object.assign(this.canvas, { width: this.size.width * ratio, height: this.size.height * ratio });
    const pen = this.canvas.getContext("2d");
    if (!pen || !this.drawn?.paint) return;
    const { left, top } = this.spec.margin;
    const { width, height } = this.inside();
    pen.scale(ratio, ratio);
    pen.beginPath();
    pen.rect(left, top, width, height);
    pen.clip();
    this.drawn.paint(pen, this.scale());
  }

  listen() {
    this.field.addEventListener("pointermove", (event) => this.point(this.nearest(event)));
    this.field.addEventListener("pointerdown", (event) => this.point(this.nearest(event)));
    this.field.addEventListener("pointerleave", (event) => event.pointerType !== "touch" && this.point(null));
    this.field.addEventListener("blur", () => this.point(null));
    this.field.addEventListener("keydown", (event) => this.pressed(event));
  }

  /** The mark nearest to the pointer. @param {PointerEvent} event */
  nearest(event) {
    const marks = this.drawn?.marks;
    if (!marks?.x.length || this.drawn?.space) return null;
    const box = this.field.getBoundingClientRect();
    const [left, top] = [event.clientX - box.left, event.clientY - box.top];
    const scale = this.scale();
    const distance = (/** @type {number} */ at) => Math.hypot(scale.x(marks.x[at]) - left, scale.y(marks.y[at]) - top);
    let best = 0;
    for (let at = 1; at < marks.x.length; at++) if (!(distance(at) >= distance(best))) best = at;
    return best;
  }

  /** @param {KeyboardEvent} event */
  pressed(event) {
    const marks = this.drawn?.marks;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: marks?.across ?? 0, ArrowDown: -(marks?.across ?? 0) }[
      event.key
    ];
    if (by === undefined && event.key !== "Escape") return;
    event.stopPropagation();
    if (!marks?.x.length || by === undefined) return this.point(null);
    if (by) event.preventDefault();
    const last = marks.x.length - 1;
    this.point(this.at === null ? (marks.start ?? last) : Math.max(0, Math.min(last, this.at + by)));
  }

  /** Shows what a mark says. @param {number | null} at */
  point(at) {
    const marks = this.drawn?.marks;
    this.at = at !== null && marks && at < marks.x.length ? at : null;
    this.ring.hidden = true;
    if (this.at === null || !marks) return setText(this.readout, "");
    const scale = this.scale();
    const [x, y] = [scale.x(marks.x[this.at]), scale.y(marks.y[this.at])];
    this.ring.hidden = !Number.isFinite(x + y) || Boolean(this.drawn?.space);
    this.ring.style.transform = `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px)`;
    setText(this.readout, marks.words(this.at));
  }

  destroy() {
    this.resizes.disconnect();
    this.context.pacer.remove(this);
    this.plot.destroy();
    this.space.destroy();
  }
}
