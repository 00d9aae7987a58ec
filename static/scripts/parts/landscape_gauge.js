// @ts-check
/** The sharpness gauge: how far the step taken is from the critical one, now and over the steps. */

import { airy, logTicks } from "../axes.js";
import { gaugeCaption } from "../captions.js";
import { h, icon, setText } from "../dom.js";
import { formatCount } from "../format.js";
import { gaugePlace, newestMeasured, readSharpness, sharpnessWords } from "../sharpness.js";
import { sharpnessLines } from "../tape.js";
import { faded } from "../theme.js";
import { dotsTrace, labelTrace, lineTrace } from "../traces.js";

/** @typedef {import("../state.js").State} State */

const ICONS = { good: "acknowledged", near: "warning", over: "critical", unknown: "waiting" };

/** @returns {import("./figure.js").FigureSpec & {lead: Node[], tell: (state: State) => void}} */
export function gaugeFigure() {
  const lead = gaugeLead();
  return {
    id: "gauge",
    title: "Sharpness gauge",
    hint: "Critical sharpness over the steps against the threshold of stability, log axis",
    margin: { left: 58, right: 14, top: 8, bottom: 24 },
    lead: [lead.element],
    tell: lead.update,
    inputs: (state) => [state.landscape.data],
    draw(state, { width }, theme) {
      const probes = state.landscape.data?.tape.probes ?? [];
      const { x, sharpness, threshold, extent } = sharpnessLines(probes);
      if (!extent) return null;
      const range = airy(extent, true);
      const [first, last] = [x[0], x[x.length - 1]];
      const limit = { x, y: threshold };
      const over = x.map((_, at) => Number(sharpness[at]) > Number(threshold[at] ?? Infinity));
      return {
        traces: [
          lineTrace(limit, { colour: theme.threshold, width: 1.5, dash: "5px,3px" }),
          lineTrace({ x, y: sharpness }, { colour: faded(theme.norm, 0.55), width: 1.25 }),
          labelTrace(thresholdLabel(x, threshold), theme.threshold),
          dotsTrace(
            { x, y: sharpness },
            { colour: over.map((yes) => (yes ? theme.bad : theme.norm)), size: x.length > width / 8 ? 3.5 : 5 },
          ),
        ],
        x: { range: [first - (last - first || 1) * 0.03, last + (last - first || 1) * 0.03], format: ",d" },
        y: { range, type: "log", ...logTicks(range) },
        marks: {
          x,
          y: sharpness.map((value) => (value === null ? NaN : Math.log10(value))),
          words: (at) => readout(probes.find(({ step }) => step === x[at]) ?? null),
        },
      };
    },
    caption(state) {
      const { data } = state.landscape;
      if (!data) return "";
      return gaugeCaption(data, data.tape.probes.filter(({ sharpness }) => Number.isFinite(sharpness ?? NaN)).length);
    },
  };
}

/** A name above the first part of the threshold. @param {number[]} x @param {(number | null)[]} threshold */
function thresholdLabel(x, threshold) {
  const at = threshold.findIndex((value, place) => value !== null && place >= x.length * 0.3);
  return at < 0 ? [] : [{ x: x[at], y: Number(threshold[at]), text: "stable below", at: "top center" }];
}

/** @param {import("../landscape.js").Probe | null} probe */
const readout = (probe) =>
  probe
    ? `step ${formatCount(probe.step)}: ${readSharpness(probe).figure} the critical step, ${sharpnessWords(probe)}`
    : "";

/** The big words with the needle under them. */
function gaugeLead() {
  const [figure, note] = [h("strong", { className: "gauge-figure" }), h("p", { className: "small" })];
  const sign = h("span", { className: "gauge-icon" });
  const needle = h("i", { className: "needle" });
  const ticks = [0.1, 0.5, 1].map((ratio) =>
    h("span", { className: "gauge-tick", style: `left: ${100 * gaugePlace(ratio)}%` }, String(ratio)),
  );
  const stops = [0.5, 1].map((ratio) => `${(100 * gaugePlace(ratio)).toFixed(1)}%`);
  const scale = h(
    "div",
    { className: "gauge-scale", "aria-hidden": "true", style: `--near: ${stops[0]}; --over: ${stops[1]}` },
    needle,
    ticks,
  );
  const sentence = h("span", {}, "Your step is ", figure, " the critical one");
  const element = h(
    "div",
    { className: "gauge-lead" },
    h("p", { className: "gauge-words" }, sign, sentence),
    scale,
    note,
  );
  const update = (/** @type {State} */ state) => {
    const probe = newestMeasured(state.landscape.data?.tape.probes ?? []);
    const reading = readSharpness(probe);
    if (element.dataset.zone !== reading.zone) sign.replaceChildren(icon(ICONS[reading.zone]));
    element.dataset.zone = reading.zone;
    setText(figure, reading.figure);
    sentence.hidden = !reading.figure;
    setText(
      note,
      [reading.note, probe && `Step ${formatCount(probe.step)}: ${sharpnessWords(probe)}.`].filter(Boolean).join(" "),
    );
    needle.hidden = !Number.isFinite(reading.ratio);
    if (!needle.hidden) needle.style.left = `${100 * gaugePlace(reading.ratio)}%`;
  };
  return { element, update };
}
