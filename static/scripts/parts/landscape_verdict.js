// @ts-check
/** Did this clip help? The verdict over the run in a sentence, and each probed clip with its error. */

import { verdictCaption } from "../captions.js";
import { placeOf, topOf, valueAt } from "../diverging.js";
import { h, icon, setText } from "../dom.js";
import { formatValue } from "../format.js";
import { dotsTrace, lineTrace } from "../traces.js";
import { countWords, eventWords, tellVerdict } from "../verdict.js";

/** @typedef {import("../state.js").State} State */
/** @typedef {import("../landscape.js").ClipEvent} ClipEvent */

const ICONS = { helped: "acknowledged", hurt: "failed", inconclusive: "waiting", none: "waiting" };
/** Shapes as well as colours. */
const SYMBOLS = { helped: "triangle-up", hurt: "triangle-down", inconclusive: "circle-open" };

/** @returns {import("./figure.js").FigureSpec & {lead: Node[], tell: (state: State) => void}} */
export function verdictFigure() {
  const sign = h("span", { className: "gauge-icon" });
  const [title, words, counts] = [h("strong"), h("p"), h("p", { className: "small" })];
  const lead = h(
    "div",
    { className: "verdict-lead" },
    h("p", { className: "gauge-words" }, sign, title),
    words,
    counts,
  );
  return {
    id: "verdict",
    title: "Did this clip help?",
    hint: "Held-out loss after the raw step less that after the clipped step, for each probed clip",
    margin: { left: 58, right: 14, top: 8, bottom: 24 },
    lead: [lead],
    tell(state) {
      const verdict = state.landscape.data?.verdict;
      const told = tellVerdict(verdict);
      if (lead.dataset.tone !== told.tone) sign.replaceChildren(icon(ICONS[told.tone]));
      lead.dataset.tone = told.tone;
      setText(title, told.title);
      setText(words, told.words);
      setText(counts, countWords(verdict));
    },
    inputs: (state) => [state.landscape.data],
    draw: (state, _, theme) => drawEvents(state.landscape.data?.verdict.events ?? [], theme),
    caption: (state) => (state.landscape.data ? verdictCaption(state.landscape.data) : ""),
  };
}

/**
 * Differences on a scale that is logarithmic on both sides of zero: a few clips often make all the difference.
 * @param {ClipEvent[]} listed @param {import("../theme.js").Colours} theme
 * @returns {import("./figure.js").Drawn | null}
 */
function drawEvents(listed, theme) {
  const events = listed.filter(({ difference }) => difference !== null && !Number.isNaN(difference));
  if (!events.length) return null;
  const error = (/** @type {ClipEvent} */ event) =>
    Number.isFinite(event.standard_error ?? NaN) ? Number(event.standard_error) : 0;
  const top = topOf(
    events.map((event) => Math.abs(Number(event.difference)) + error(event)),
    1,
  );
  const x = events.map(({ step }) => step);
  const y = events.map(({ difference }) => placeOf(Number(difference), top));
  const low = events.map((event, at) => y[at] - placeOf(Number(event.difference) - error(event), top));
  const high = events.map((event, at) => placeOf(Number(event.difference) + error(event), top) - y[at]);
  const colour = { helped: theme.good, hurt: theme.bad, inconclusive: theme.muted };
  const [first, last] = [Math.min(...x), Math.max(...x)];
  const air = (last - first || 1) * 0.04;
  const places = [-1, -0.5, 0, 0.5, 1];
  const ofOutcome = (/** @type {ClipEvent["outcome"]} */ outcome) => {
    const pick = (/** @type {number[]} */ values) => values.filter((_, at) => events[at].outcome === outcome);
    const errors = { low: pick(low), high: pick(high), colour: colour[outcome] };
    const style = { colour: colour[outcome], size: 7, symbol: SYMBOLS[outcome], errors };
    return dotsTrace({ x: pick(x), y: pick(y) }, style);
  };
  return {
    traces: [
      lineTrace({ x: [first - air, last + air], y: [0, 0] }, { colour: theme.line, width: 1 }),
      ofOutcome("inconclusive"),
      ofOutcome("hurt"),
      ofOutcome("helped"),
    ],
    x: { range: [first - air, last + air], format: ",d" },
    y: {
      range: [-1.12, 1.12],
      values: places,
      labels: places.map((place) => (place ? formatValue(valueAt(place, top), 1) : "0")),
      title: "hurt ← → helped",
    },
    marks: { x, y, words: (at) => eventWords(events[at]) },
  };
}
