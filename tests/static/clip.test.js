// What clipping is and does, in words.
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  bendsGradient,
  describeClip,
  describeLimit,
  describeSampling,
  eventLine,
  hookNotes,
  limitsTotalNorm,
  skipReadings,
} from "../../static/scripts/clip.js";
import { nonfiniteIn } from "../../static/scripts/feed.js";
import { tableFromFrame } from "../../static/scripts/series.js";
import { frame } from "./tables.js";

const table = (series) =>
  tableFromFrame(
    frame(
      Object.values(series)[0].map((_, at) => at),
      series,
    ),
  );

test("any strategy is told with its arguments, without what limits what", () => {
  const cases = [
    [null, "none (measured only)"],
    [{ strategy: "MeasureOnly", threshold_of: "nothing" }, "none (measured only)"],
    [{ strategy: "GlobalNorm", max_norm: 1, norm_type: "inf" }, "GlobalNorm max_norm=1, norm_type=inf"],
    [
      { strategy: "ZClip", alpha: 0.97, z_thresh: 2.5, clip_factor: null, threshold_of: "total norm" },
      "ZClip alpha=0.97, z_thresh=2.5",
    ],
    [{ strategy: "PerGroup", max_norm: [0.5, 1], fancy: true }, "PerGroup max_norm=[0.5, 1], fancy=true"],
    [
      { strategy: "PerGroup", max_norm: { "encoder.*": 0.5, "*": ["a", null] } },
      "PerGroup max_norm={encoder.*: 0.5, *: [a, null]}",
    ],
    [{ max_norm: "schedule warmup" }, "unknown max_norm=schedule warmup"],
    [{ strategy: "Normalize" }, "Normalize"],
  ];
  for (const [clip, words] of cases) assert.equal(describeClip(clip), words);
});

test("a threshold that does not limit the total norm says what it limits", () => {
  const of = (threshold_of, threshold) => describeLimit(threshold_of && { strategy: "X", threshold_of }, threshold);
  for (const clip of [null, undefined, { strategy: "GlobalNorm" }, { threshold_of: "total norm" }]) {
    assert.ok(limitsTotalNorm(clip), "also for hooks that do not say");
    assert.equal(describeLimit(clip, 0.5), "");
  }
  for (const what of ["layer", "element", "unit", "group", "nothing"])
    assert.ok(!limitsTotalNorm({ threshold_of: what }), what);
  assert.equal(of("element", 0.5), "0.5 per element");
  assert.equal(of("layer", 10), "10 per layer");
  assert.equal(of("layer", 100), "100 per layer");
  assert.equal(of("unit", 0.01), "0.01 per unit");
  assert.equal(of("unit", 0.0001), "1.0e−4 per unit");
  assert.equal(of("group", undefined), "per group");
  assert.equal(of("group", NaN), "per group");
  assert.equal(of("layer", Infinity), "none");
  assert.equal(of("nothing", Infinity), "");
});

test("the cost of sampling is a share of all steps' time", () => {
  const steps = { step_seconds: [[], [0.1], [0.1], [0.1]], sample_seconds: [[0], [0.0032], [0], [0]] };
  assert.equal(describeSampling(table(steps)), "0.8 % of step time");
  assert.equal(describeSampling(table({ step_seconds: [[0.1]], sample_seconds: [[0]] })), "");
  assert.equal(describeSampling(table({ step_seconds: [[0.1]] })), "", "an older hook");
});

test("a cosine counts from where arithmetic alone does not explain it", () => {
  assert.ok(!bendsGradient(table({ loss: [[1]] })));
  assert.ok(!bendsGradient(table({ clip_cosine: [[1, 1], [0.9999998], [], [NaN]] })));
  assert.ok(bendsGradient(table({ clip_cosine: [[1], [1, 0.9999], [1]] })));
});

const note = (name, text, step, kind = "hook") => ({ run: "r", kind, name, text, step, time: step });

test("notes of the hook: each sentence once, with its newest step, the newest first", () => {
  const notes = hookNotes([
    note("wiring", "a", 3),
    note("overflow", "b", 4),
    note("checkpoint", "mine", 5, "user"),
    note("wiring", "a", 9),
    note("wiring", "c", 6),
  ]);
  assert.deepEqual(
    notes.map(({ event, count }) => [event.name, event.text, event.step, count]),
    [
      ["wiring", "c", 6, 1],
      ["wiring", "a", 9, 2],
      ["overflow", "b", 4, 1],
    ],
  );
  assert.deepEqual(hookNotes([]), []);
});

test("an event in one line", () => {
  assert.equal(eventLine(note("wiring", "it comes late", 1)), "Wiring of the clip: it comes late");
  assert.equal(eventLine(note("overflow", "", 1)), "Overflow");
  assert.equal(eventLine(note("degraded", "modules only", 1)), "degraded: modules only");
  assert.equal(eventLine(note("overflow", "mine", 1, "user")), "mine", "a user's own word is left alone");
  assert.equal(eventLine(note("", "", 1, "restart")), "restart");
});

test("who left steps out, and how many of how many", () => {
  const words = (skips, steps) => skipReadings(skips, steps).map(({ label, value }) => `${label} ${value}`);
  assert.deepEqual(words({ hook: 1, scaler: 0 }, 1), ["■ left out by the hook"]);
  assert.deepEqual(words({ hook: 2, scaler: 3 }, 64), [
    "■ 2 of 64 steps left out by the hook",
    "○ 3 of 64 steps left out for the loss scale",
  ]);
  assert.deepEqual(words({ hook: 0, scaler: 0 }, 64), []);
});

test("steps that are not finite, over a whole run as JSON tells them", () => {
  const stats = (nonfinite, count, mean) => ({ nonfinite, count, mean });
  assert.equal(nonfiniteIn({}), 0);
  assert.equal(nonfiniteIn({ loss: stats([2], [8], [1]), total_norm: stats([3], [7], [1]) }), 3, "an older hook");
  const overflowed = stats([0, 0], [10, 4], [0.3, null]);
  assert.equal(nonfiniteIn({ loss: stats([0], [14], [1]), total_norm: stats([4], [10], [1]), overflowed }), 1);
  assert.equal(nonfiniteIn({ loss: stats([3], [14], [1]), total_norm: stats([3], [10], [1]), overflowed }), 3);
});
