// @ts-check
/** Axes and plots. The only module that knows plotly; panels hand it the plain data of traces.js, and ranges. */

/** @type {Promise<any> | null} */
let loading = null;

/** Loads plotly.js from our own server, once, when the first chart is wanted. */
function loadPlotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "static/plotly.min.js";
    script.onload = () => resolve(/** @type {any} */ (globalThis).Plotly);
    script.onerror = () => {
      loading = null;
      reject(new Error("The chart library (static/plotly.min.js) could not be loaded from the server."));
    };
    document.head.append(script);
  });
  return loading;
}

/** No toolbar: it carries a logo and, since plotly.js 4, a "Share chart" button that uploads to a cloud. */
const CONFIG = {
  displayModeBar: false,
  displaylogo: false,
  showSendToCloud: false,
  plotlyServerURL: "",
  doubleClick: false,
  showTips: false,
  scrollZoom: false,
  responsive: false,
};

/** @typedef {{left: number, right: number, top: number, bottom: number}} Margin */
/**
 * @typedef {object} Axis
 * @property {[number, number]} range in log10 on a log axis
 * @property {"linear" | "log"} [type] @property {string} [format] @property {number[]} [values]
 * @property {string[]} [labels]
 * @property {boolean} [grid] @property {number} [size] font size of its labels
 * @property {string} [title] @property {boolean} [zero] a line at 0
 */
/**
 * @typedef {object} Drawing
 * @property {object[]} traces @property {[number, number]} range steps at the left and right edge @property {Axis} y
 * @property {boolean} grid vertical lines @property {boolean} ticks label the steps @property {Margin} margin
 * @property {import("./theme.js").Colours} colours
 * @property {boolean} touch a finger scrolls the page here instead of zooming
 */
/**
 * @typedef {object} ChartHandlers
 * @property {(range: [number, number]) => void} zoom a range was dragged out or a pan ended
 * @property {(range: [number, number]) => void} panning the range during a pan
 * @property {() => void} reset a double click
 */

export class Chart {
  /** @param {HTMLElement} element @param {ChartHandlers} handlers */
  constructor(element, handlers) {
    this.element = /** @type {any} */ (element);
    this.handlers = handlers;
    this.listening = false;
    /** @type {any} */ this.plotly = null;
    this.gone = false;
  }

  /** @param {Drawing} drawing */
  async draw(drawing) {
    this.plotly ??= await loadPlotly();
    if (this.gone || !this.element.clientWidth) return;
    await this.plotly.react(this.element, drawing.traces, this.layout(drawing), CONFIG);
    if (!this.listening && !this.gone) this.listen();
  }

  listen() {
    this.listening = true;
    this.element.on("plotly_relayout", (/** @type {any} */ change) => this.moved(change, this.handlers.zoom));
    this.element.on("plotly_relayouting", (/** @type {any} */ change) => this.moved(change, this.handlers.panning));
    this.element.on("plotly_doubleclick", () => this.handlers.reset());
  }

  /** @param {any} change @param {(range: [number, number]) => void} tell */
  moved(change, tell) {
    const low = change["xaxis.range[0]"] ?? change["xaxis.range"]?.[0];
    const high = change["xaxis.range[1]"] ?? change["xaxis.range"]?.[1];
    if (Number.isFinite(low) && Number.isFinite(high)) tell([low, high]);
  }

  /** @param {Drawing} drawing */
  layout({ range, y, grid, ticks, margin, colours, touch }) {
    return {
      ...frame(this.element, margin, colours),
      dragmode: touch ? false : "zoom",
      xaxis: {
        ...stepTicks(range, this.element.clientWidth),
        range,
        showticklabels: ticks,
        tickformat: ",d",
        showgrid: grid,
        gridcolor: colours.grid,
        zeroline: false,
        showline: false,
        ticks: "",
        fixedrange: touch,
        tickangle: 0,
      },
      yaxis: plainAxis(y, colours),
    };
  }

  destroy() {
    this.gone = true;
    if (this.plotly && this.listening) this.plotly.purge(this.element);
  }
}

/**
 * What every layout begins with.
 * @param {any} element @param {Margin} margin @param {import("./theme.js").Colours} colours
 */
const frame = (element, margin, colours) => ({
  width: element.clientWidth,
  height: element.clientHeight,
  margin: { l: margin.left, r: margin.right, t: margin.top, b: margin.bottom, pad: 0 },
  paper_bgcolor: "rgba(0,0,0,0)",
  plot_bgcolor: "rgba(0,0,0,0)",
  font: { family: colours.font, size: 11, color: colours.muted },
  showlegend: false,
  hovermode: false,
});

/** A plot with axes of its own that stands still: two of them, or three that can be turned. */
export class Plot {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = /** @type {any} */ (element);
    /** @type {any} */ this.plotly = null;
    this.drawn = false;
    this.gone = false;
  }

  /**
   * @param {object[]} traces @param {{x: Axis, y: Axis}} axes @param {Margin} margin
   * @param {import("./theme.js").Colours} colours
   */
  draw(traces, { x, y }, margin, colours) {
    const axes = { xaxis: { ...plainAxis(x, colours), tickangle: 0 }, yaxis: plainAxis(y, colours) };
    return this.react(traces, () => ({ ...frame(this.element, margin, colours), dragmode: false, ...axes }));
  }

  /**
   * In 3-D; the camera stays where the person left it.
   * @param {object[]} traces @param {{x: Axis, y: Axis, z: Axis}} axes @param {import("./theme.js").Colours} colours
   */
  drawSpace(traces, axes, colours) {
    const look = { backgroundcolor: "rgba(0,0,0,0)", color: colours.muted, showspikes: false, gridcolor: colours.grid };
    const axis = (/** @type {Axis} */ given) => ({
      ...plainAxis(given, colours),
      ...look,
      title: { text: given.title },
    });
    const scene = {
      uirevision: "kept",
      aspectmode: "manual",
      aspectratio: { x: 1.15, y: 1.15, z: 0.75 },
      camera: { eye: { x: 1.05, y: -1.2, z: 1.25 }, center: { x: 0, y: 0, z: -0.16 } },
      dragmode: "turntable",
      xaxis: axis(axes.x),
      yaxis: axis(axes.y),
      zaxis: axis(axes.z),
    };
    const margin = { left: 0, right: 0, top: 0, bottom: 0 };
    return this.react(traces, () => ({ ...frame(this.element, margin, colours), uirevision: "kept", scene }));
  }

  /** @param {object[]} traces @param {() => object} layout */
  async react(traces, layout) {
    this.plotly ??= await loadPlotly();
    if (this.gone || !this.element.clientWidth) return;
    this.drawn = true;
    await this.plotly.react(this.element, traces, layout(), CONFIG);
  }

  /** Takes the drawing away, and gives a 3-D context back. */
  clear() {
    if (this.drawn) this.plotly.purge(this.element);
    this.drawn = false;
  }

  destroy() {
    this.gone = true;
    this.clear();
  }
}

/** Ticks on whole steps, about one in 120 pixels. @param {[number, number]} range @param {number} width */
function stepTicks([first, last], width) {
  const nticks = Math.max(3, Math.round(width / 120));
  return last - first <= nticks ? { tickmode: "linear", dtick: 1, tick0: 0 } : { tickmode: "auto", nticks };
}

/** @param {Axis} y @param {import("./theme.js").Colours} colours */
function plainAxis(y, colours) {
  const labels = y.values ? { tickmode: "array", tickvals: y.values, ticktext: y.labels } : { nticks: 5 };
  return {
    ...labels,
    type: y.type ?? "linear",
    range: y.range,
    tickformat: y.format ?? "",
    gridcolor: colours.grid,
    showgrid: y.grid ?? true,
    tickfont: { size: y.size ?? 11 },
    title: y.title ? { text: y.title, standoff: 4, font: { size: 11 } } : undefined,
    zeroline: y.zero ?? false,
    zerolinecolor: colours.line,
    zerolinewidth: 1,
    showline: false,
    ticks: "",
    fixedrange: true,
    automargin: false,
    exponentformat: "power",
    minorloglabels: "none",
  };
}
