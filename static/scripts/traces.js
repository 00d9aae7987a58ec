// @ts-check
/** What a plot draws, as plain data: lines, bands, points, contours, surfaces. Pure. */

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
 * Points without a line; with `errors` each has a bar from low to high around it.
 * @param {{x: any[], y: any[]}} points
 * @param {{colour: string | string[], size?: number | number[], symbol?: string | string[], rim?: string,
 *   errors?: {low: number[], high: number[], colour: string}}} style
 */
export function dotsTrace({ x, y }, { colour, size = 6, symbol = "circle", rim, errors }) {
  const bars = errors && { array: errors.high, arrayminus: errors.low, color: errors.colour };
  return {
    type: "scatter",
    mode: "markers",
    x,
    y,
    cliponaxis: false,
    marker: { color: colour, size, symbol, opacity: 1, line: { width: rim ? 1.25 : 0, color: rim } },
    ...(bars ? { error_y: { type: "data", symmetric: false, thickness: 1, width: 0, ...bars } } : {}),
  };
}

/**
 * Words at points.
 * @param {{x: number, y: number, text: string, at: string}[]} labels `at` says where from the point they stand
 * @param {string} colour
 */
export const labelTrace = (labels, colour) => ({
  type: "scatter",
  mode: "text",
  x: labels.map(({ x }) => x),
  y: labels.map(({ y }) => y),
  text: labels.map(({ text }) => text),
  textposition: labels.map(({ at }) => at),
  textfont: { color: colour, size: 11 },
  cliponaxis: false,
});

/** @param {string[]} colours */
const scaleOfColours = (colours) => colours.map((colour, at) => [at / (colours.length - 1), colour]);

/**
 * Filled levels between values; a gap (null) stays open.
 * @param {{x: number[], y: number[], z: (number | null)[][]}} grid
 * @param {{low: number, high: number, colours: string[], line: string}} style
 */
export function contourTrace(grid, { low, high, colours, line }) {
  return {
    type: "contour",
    ...grid,
    zmin: low,
    zmax: high,
    zauto: false,
    autocontour: false,
    contours: { start: low, end: high, size: (high - low) / 16, coloring: "fill", showlines: true },
    colorscale: scaleOfColours(colours),
    line: { width: 0.6, color: line, smoothing: 0 },
    connectgaps: false,
    showscale: false,
    hoverinfo: "skip",
  };
}

/**
 * @param {{x: number[], y: number[], z: (number | null)[][]}} grid
 * @param {{low: number, high: number, colours: string[], colour: (number | null)[][]}} style `colour` may be another
 *   quantity than the height
 */
export function surfaceTrace(grid, { low, high, colours, colour }) {
  return {
    type: "surface",
    ...grid,
    surfacecolor: colour,
    cmin: low,
    cmax: high,
    cauto: false,
    colorscale: scaleOfColours(colours),
    connectgaps: false,
    showscale: false,
    hoverinfo: "skip",
    lighting: { ambient: 0.75, diffuse: 0.55, specular: 0.08, roughness: 0.9 },
  };
}

/**
 * A line with points in 3-D.
 * @param {{x: any[], y: any[], z: any[]}} points @param {string} colour @param {number[]} size
 */
export const spaceTrace = (points, colour, size) => ({
  type: "scatter3d",
  mode: "lines+markers",
  ...points,
  connectgaps: false,
  hoverinfo: "skip",
  line: { color: colour, width: 5 },
  marker: { color: colour, size },
});
