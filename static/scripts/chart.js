// @ts-check
/** Axes and lines. The only module that knows plotly; panels hand it plain traces and ranges. */

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
      width: this.element.clientWidth,
      height: this.element.clientHeight,
      margin: { l: margin.left, r: margin.right, t: margin.top, b: margin.bottom, pad: 0 },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: colours.font, size: 11, color: colours.muted },
      showlegend: false,
      hovermode: false,
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
      yaxis: yAxis(y, colours),
    };
  }

  destroy() {
    this.gone = true;
    if (this.plotly && this.listening) this.plotly.purge(this.element);
  }
}

/** Ticks on whole steps, about one in 120 pixels. @param {[number, number]} range @param {number} width */
function stepTicks([first, last], width) {
  const nticks = Math.max(3, Math.round(width / 120));
  return last - first <= nticks ? { tickmode: "linear", dtick: 1, tick0: 0 } : { tickmode: "auto", nticks };
}

/** @param {Axis} y @param {import("./theme.js").Colours} colours */
function yAxis(y, colours) {
  const labels = y.values ? { tickmode: "array", tickvals: y.values, ticktext: y.labels } : { nticks: 5 };
  return {
    ...labels,
    type: y.type ?? "linear",
    range: y.range,
    tickformat: y.format ?? "",
    gridcolor: colours.grid,
    showgrid: y.grid ?? true,
    tickfont: { size: y.size ?? 11 },
    zeroline: false,
    showline: false,
    ticks: "",
    fixedrange: true,
    automargin: false,
    exponentformat: "power",
    minorloglabels: "none",
  };
}

/**
 * Labels of a log axis: every nth decade where the range is wide, steps between where it is narrow.
 * @param {[number, number]} range in log10 @returns {{values?: number[], labels?: string[]}}
 */
export function logTicks([low, high]) {
  const decades = high - low;
  const every = Math.max(1, Math.ceil(decades / 5));
  const digits = decades > 2.5 ? [1] : decades > 1.2 ? [1, 3] : [1, 1.5, 2, 3, 4, 5, 7];
  const values = [];
  for (let power = Math.floor(low); power <= high; power++) {
    if (power % every === 0) values.push(...digits.map((digit) => digit * 10 ** power));
  }
  const shown = values.filter((value) => Math.log10(value) >= low && Math.log10(value) <= high);
  const label = (/** @type {number} */ value) =>
    value >= 1e6 || value < 1e-3 ? value.toExponential().replace("e+", "e") : String(Number(value.toPrecision(2)));
  return shown.length > 1 ? { values: shown, labels: shown.map(label) } : {};
}

/**
 * A line through column values; with `markers` each value is a point of its own.
 * @param {{x: any[], y: any[]}} points
 * @param {{colour: string, width?: number, dash?: string, markers?: boolean, steps?: boolean}} style
 */
export function lineTrace({ x, y }, { colour, width = 1.5, dash = "solid", markers = false, steps = false }) {
  return {
    type: "scatter",
    mode: markers ? "lines+markers" : "lines",
    x,
    y,
    connectgaps: false,
    hoverinfo: "skip",
    line: { color: colour, width, dash, shape: steps ? "hv" : "linear", simplify: true },
    marker: { color: colour, size: 4 },
  };
}

/** A filled outline without a line. @param {{x: any[], y: any[]}} points @param {string} fill */
export function bandTrace({ x, y }, fill) {
  return {
    type: "scatter",
    mode: "lines",
    x,
    y,
    fill: "toself",
    fillcolor: fill,
    line: { width: 0.75, color: fill },
    hoverinfo: "skip",
  };
}

/**
 * The range of a y axis around [low, high] with a little air; log ranges in log10.
 * @param {[number, number] | null} extent @param {boolean} log @returns {[number, number]}
 */
export function airy(extent, log) {
  if (!extent) return log ? [-3, 1] : [0, 1];
  const [low, high] = log ? extent.map(Math.log10) : extent;
  const air = (high - low) * 0.07 || (log ? 0.3 : Math.abs(high) * 0.1 || 0.5);
  return [low - air, high + air];
}
