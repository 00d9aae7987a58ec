// @ts-check
/** The heatmap: every layer's gradient norm at every step, a canvas under plotly's axes. */

import { h, setText } from "../dom.js";
import { formatCount, formatValue, shortenName } from "../format.js";
import { executionOrder, lutColour, namedRows, raster, scaleOf } from "../heatmap.js";
import { hatching } from "./hatching.js";
import { NARROW } from "./panel.js";

/** @typedef {import("./panel.js").Scene} Scene */
/** @typedef {CanvasRenderingContext2D} Pen */
/** @typedef {import("../heatmap.js").Raster} Raster */
/** @typedef {{table: unknown, layers: unknown, rows: number, fold: number, raster: Raster}} Drawn */

/** @returns {import("./panel.js").PanelSpec} */
export function heatmapPanel() {
  const image = document.createElement("canvas");
  /** @type {Drawn | null} */
  let drawn = null;
  const [low, high] = [h("span"), h("span")];
  const gradient = Array.from({ length: 9 }, (_, at) => lutColour(Math.round((at * 255) / 8))).join(", ");
  const legend = h(
    "div",
    { className: "colour-scale" },
    low,
    h("span", { className: "ramp", style: `background: linear-gradient(to right, ${gradient})` }),
    high,
    h("span", { className: "swatch", title: "non-finite" }),
    h("span", {}, "non-finite"),
  );

  /** @param {Scene} scene */
  const paintImage = (scene) => {
    const { table, span, state, area } = scene;
    const layers = layersOf(state);
    const rows = Math.min(layers.length, Math.round(area.height));
    const fold = Math.max(1, Math.ceil((span.to - span.from) / (area.width * (window.devicePixelRatio || 1))));
    if (drawn?.table === table && drawn.layers === state.run?.layers && drawn.rows === rows && drawn.fold === fold)
      return drawn.raster;
    const scale = scaleOf(table, span);
    const result = raster(table, executionOrder(layers), rows, scale, fold);
    if (result.columns) {
      Object.assign(image, { width: result.columns, height: result.rows });
      const bytes = new Uint8ClampedArray(/** @type {ArrayBuffer} */ (result.pixels.buffer));
      image.getContext("2d")?.putImageData(new ImageData(bytes, result.columns, result.rows), 0, 0);
    }
    setText(low, formatValue(10 ** scale[0], 2));
    setText(high, formatValue(10 ** scale[1], 2));
    drawn = { table, layers: state.run?.layers, rows, fold, raster: result };
    return result;
  };

  return {
    id: "heatmap",
    title: "Gradient norm by layer",
    hint: "Gradient norm of every layer over the steps, log colour",
    steps: true,
    image: true,
    controls: [legend],
    axis: (scene) => nameAxis(layersOf(scene.state), scene.area.height),
    traces: () => [],
    paint(pen, scene, x) {
      const result = paintImage(scene);
      if (!result.columns) return;
      const { top, height } = scene.area;
      const left = x(result.first - 0.5);
      pen.imageSmoothingEnabled = false;
      pen.drawImage(image, left, top, x(result.first + result.columns * result.width - 0.5) - left, height);
      drawHatched(pen, scene, result, x);
    },
    readout: cellReadings,
  };
}

/**
 * The layers of the shown table; before their names have come, numbers stand in.
 * @param {import("../state.js").State} state @returns {{index: number, order: number, name: string}[]}
 */
function layersOf(state) {
  const known = state.run?.layers ?? [];
  const count = state.view.table.layers;
  if (known.length === count || !count) return known.slice(0, count);
  return Array.from({ length: count }, (_, index) => known[index] ?? { index, order: index, name: `layer ${index}` });
}

/** @param {ReturnType<typeof layersOf>} layers @param {number} height */
function nameAxis(layers, height) {
  const order = executionOrder(layers);
  const shown = namedRows(order.length, height);
  const length = NARROW.matches ? 12 : 31;
  const named = (/** @type {string} */ name) =>
    shortenName(NARROW.matches ? name.replace(/\.weight$/, "") : name, length);
  const labels = shown.map((place) => named(layers[order[place]].name));
  return {
    range: /** @type {[number, number]} */ ([Math.max(1, order.length) - 0.5, -0.5]),
    values: shown,
    labels,
    grid: false,
    size: NARROW.matches ? 9 : 10.5,
  };
}

/**
 * Non-finite cells: dark with a cross or a hatch, and never smaller than a few pixels.
 * @param {Pen} pen @param {Scene} scene @param {import("../heatmap.js").Raster} result
 * @param {(step: number) => number} x
 */
function drawHatched(pen, { area }, result, x) {
  const rowHeight = area.height / result.rows;
  const hatch = hatching(pen, "rgba(255, 255, 255, 0.55)");
  for (const { row, from, to } of result.nonfinite) {
    const middle = (x(result.first + from * result.width - 0.5) + x(result.first + (to + 1) * result.width - 0.5)) / 2;
    const width = Math.max(
      6,
      x(result.first + (to + 1) * result.width - 0.5) - x(result.first + from * result.width - 0.5),
    );
    const height = Math.max(6, rowHeight);
    const [left, top] = [middle - width / 2, area.top + (row + 0.5) * rowHeight - height / 2];
    pen.fillStyle = "#0b0b0f";
    pen.fillRect(left, top, width, height);
    if (width <= 14) crossOut(pen, middle, top + height / 2, Math.min(width, height) / 2 - 1.25);
    else if (hatch) {
      pen.fillStyle = hatch;
      pen.fillRect(left, top, width, height);
    }
  }
}

/** @param {Pen} pen @param {number} x @param {number} y @param {number} size */
function crossOut(pen, x, y, size) {
  pen.strokeStyle = "#ffffff";
  pen.lineWidth = 1.2;
  pen.beginPath();
  pen.moveTo(x - size, y - size);
  pen.lineTo(x + size, y + size);
  pen.moveTo(x + size, y - size);
  pen.lineTo(x - size, y + size);
  pen.stroke();
}

/**
 * The layer under the pointer, or the loudest one.
 * @param {import("../state.js").State} state @param {number} at @param {number | null} y
 * @returns {import("./panel.js").Reading[]}
 */
function cellReadings(state, at, y) {
  const cells = state.view.table.cells[at];
  if (!cells) return [];
  const layers = layersOf(state);
  const order = executionOrder(layers);
  const pointed = y !== null && y >= 0 && y < 1;
  const layer = pointed ? order[Math.floor(y * order.length)] : loudest(cells);
  if (layer === undefined || !layers[layer]) return [];
  const name = { label: pointed ? "" : "largest", value: layers[layer].name, tone: "layer" };
  if (!cells.count[layer] && !cells.nonfinite[layer]) return [name, { label: "", value: "no gradient (absent)" }];
  const bad = cells.nonfinite[layer]
    ? [{ label: "non-finite", value: `✕ ${formatCount(cells.nonfinite[layer])}`, tone: "bad" }]
    : [];
  if (!cells.count[layer]) return [name, ...bad];
  if (cells.count[layer] === 1) return [name, { label: "norm", value: formatValue(cells.max[layer]) }, ...bad];
  return [
    name,
    { label: "min", value: formatValue(cells.min[layer]) },
    { label: "mean", value: formatValue(cells.mean[layer]) },
    { label: "max", value: formatValue(cells.max[layer]) },
    ...bad,
  ];
}

/** @param {import("../series.js").Cells} cells */
function loudest(cells) {
  let best = 0;
  for (let layer = 1; layer < cells.max.length; layer++) {
    const better =
      cells.nonfinite[layer] > cells.nonfinite[best] ||
      (cells.nonfinite[layer] === cells.nonfinite[best] &&
        !(cells.max[best] >= cells.max[layer]) &&
        cells.count[layer]);
    if (better) best = layer;
  }
  return best;
}
