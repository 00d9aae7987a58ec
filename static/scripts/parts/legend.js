// @ts-check
/** The colours of a log scale with a few of its values, and the cells that have none of its colours. */

import { h, setText } from "../dom.js";
import { scaleTicks } from "../surface.js";

/** @param {...[string, string]} signs class and words of what stands outside the scale; shown where there is some */
export function colourLegend(...signs) {
  const bar = h("span", { className: "ramp wide" });
  const ticks = h("span", { className: "ramp-ticks" });
  const marks = signs.map(([kind, words]) => {
    const count = h("span");
    return {
      kind,
      words,
      count,
      element: h(
        "span",
        { className: "sign", hidden: true },
        h("i", { className: kind, "aria-hidden": "true" }),
        count,
      ),
    };
  });
  const scaled = h("span", { className: "ramp-box" }, bar, ticks);
  const element = h(
    "div",
    { className: "colour-scale figure-legend" },
    scaled,
    marks.map((mark) => mark.element),
  );
  let drawn = "";
  const update = (
    /** @type {import("../surface.js").Scale | null} */ scale,
    /** @type {string[]} */ stops,
    /** @type {Record<string, number>} */ counts,
  ) => {
    scaled.hidden = !scale;
    const labels = scale ? scaleTicks(scale, 4).labels : [];
    const key = [...stops, ...labels].join();
    if (key !== drawn) {
      drawn = key;
      bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
      ticks.replaceChildren(...labels.map((label) => h("span", {}, label)));
    }
    for (const { kind, words, count, element: shown } of marks) {
      shown.hidden = !counts[kind];
      setText(count, `${counts[kind] ?? 0} ${words}`);
    }
  };
  return { element, update };
}
