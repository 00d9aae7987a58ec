// The landscape's state, its address, and what it says in words.
import assert from "node:assert/strict";
import { test } from "node:test";
import * as captions from "../../static/scripts/captions.js";
import {
  emptyLandscape,
  hasLandscape,
  pendingSurface,
  readNumbers,
  refusalOf,
  tellsOfLandscape,
} from "../../static/scripts/landscape.js";
import { requestWords } from "../../static/scripts/parts/landscape_request.js";
import { parseRoute } from "../../static/scripts/route.js";
import { gaugePlace, newestMeasured, readSharpness, sharpnessWords } from "../../static/scripts/sharpness.js";
import { initialState, reduce } from "../../static/scripts/state.js";
import { countWords, eventWords, tellVerdict } from "../../static/scripts/verdict.js";

const ABOUT = { mode: "eval", dtype: "float32", batches: 2, buffers: "frozen at the anchor", hooks_left_out: 0 };
const answer = (change = {}) => ({
  tape: { alpha: [0, 1], every: 1, count: 0, probes: [] },
  line: null,
  verdict: { unsupported: null, events: [], overall: null },
  surfaces: [],
  surface: null,
  trajectory: null,
  cost: { seconds: 90, share: 0.0094 },
  ...change,
});
const surfaces = (...entries) => ({
  surfaces: entries.map((entry) => ({ probe: 3, step: 9, plane: "update", levels: 9, ...entry })),
});

const opened = () =>
  [
    { type: "run", run: { id: "r", state: "running", last_step: 3, alerts: { open: 0 } } },
    { type: "landscape", run: "r", surface: null, answer: answer() },
  ].reduce(reduce, initialState(parseRoute("#/run/r"), 100));

test("words for numbers are read wherever numbers stand, and facts stay text", () => {
  const read = readNumbers({
    a: ["NaN", 1, null, ["Infinity"]],
    b: { c: "-Infinity" },
    reason: "x",
    about: { rule: "NaN" },
  });
  assert.deepEqual(read, { a: [NaN, 1, null, [Infinity]], b: { c: -Infinity }, reason: "x", about: { rule: "NaN" } });
});

test("an answer counts for the run and the surface that are still chosen", () => {
  const state = opened();
  assert.equal(state.landscape.data.cost.seconds, 90);
  const other = answer({ cost: { seconds: 1, share: null } });
  assert.equal(reduce(state, { type: "landscape", run: "other", surface: null, answer: other }), state);
  const chosen = reduce(state, { type: "landscape-surface", surface: 7 });
  const late = reduce(chosen, { type: "landscape", run: "r", surface: null, answer: other });
  assert.equal(late.landscape.data.cost.seconds, 90);
  assert.equal(
    reduce(chosen, { type: "landscape", run: "r", surface: 7, answer: other }).landscape.data.cost.seconds,
    1,
  );
  assert.deepEqual(reduce(state, { type: "route", route: parseRoute("#/run/s") }).landscape, emptyLandscape());
  assert.equal(reduce(state, { type: "route", route: parseRoute("#/run/r?span=9") }).landscape, state.landscape);
});

test("a surface that is asked for is followed until it is whole", () => {
  const asked = (phase, id = "", text = "") => ({ type: "landscape-asked", run: "r", asked: { phase, id, text } });
  let state = reduce(reduce(opened(), { type: "landscape-surface", surface: 7 }), asked("sending"));
  assert.equal(requestWords(state.landscape), "Asking…");
  assert.equal(reduce(state, asked("refused", "", "Not connected.")).landscape.surface, 7);
  assert.equal(requestWords(reduce(state, asked("refused", "", "Not connected.")).landscape), "Not connected.");
  state = reduce(state, asked("asked", "ab"));
  assert.equal(state.landscape.surface, null, "the newest is shown: it will be the one asked for");
  assert.match(requestWords(state.landscape), /takes it up/);
  const grown = (request, computed) => ({
    type: "landscape",
    run: "r",
    surface: null,
    answer: answer(surfaces({ request, computed })),
  });
  state = reduce(state, grown("other", 5));
  assert.equal(pendingSurface(state.landscape), null);
  state = reduce(state, grown("ab", 30));
  assert.equal(requestWords(state.landscape), "30 of 81 points");
  state = reduce(state, grown("ab", 81));
  assert.equal(state.landscape.asked, null);
  assert.equal(requestWords(state.landscape), "");
});

test("whether there is something to show, and whether more can be asked for", () => {
  assert.ok(!hasLandscape(null) && !hasLandscape(answer()));
  assert.ok(hasLandscape(answer(surfaces({}))));
  assert.ok(hasLandscape(answer({ verdict: { unsupported: "Muon", events: [], overall: null } })));
  assert.ok(hasLandscape(answer({ tape: { alpha: [], every: 1, count: 1, probes: [] } })));
  assert.equal(refusalOf({ state: "running", control: true }), "");
  assert.match(refusalOf({ state: "running", control: false }), /control=True/);
  assert.match(refusalOf({ state: "running" }), /control=True/);
  assert.match(refusalOf({ state: "finished", control: true }), /ended/);
  assert.match(refusalOf(null), /not known/);
  assert.ok(tellsOfLandscape({ type: "run", run: {}, landscape: true }));
  assert.ok(tellsOfLandscape({ type: "run", run: { landscape: true } }));
  assert.ok(!tellsOfLandscape({ type: "heartbeat", time: 1 }) && !tellsOfLandscape({ type: "run", run: {} }));
});

const measured = (critical_low, critical_high, more = {}) => ({
  step: 5,
  critical_low,
  critical_high,
  sharpness: 40,
  stability_threshold: 38,
  ...more,
});

test("the gauge says how far the step is from the critical one", () => {
  const told = (low, high) => {
    const { zone, figure } = readSharpness(measured(low, high));
    return [zone, figure];
  };
  assert.deepEqual(told(7.6, 8), ["good", "0.13 ×"]);
  assert.deepEqual(told(1.5, 1.6), ["near", "0.65 ×"]);
  assert.deepEqual(told(0.48, 0.5), ["over", "2.0 ×"]);
  assert.deepEqual(told(0.94, 1), ["over", "1.0 ×"]);
  assert.deepEqual(told(64, Infinity), ["good", "< 0.016 ×"]);
  assert.deepEqual(told(0, 0.01), ["over", "> 100 ×"]);
  assert.deepEqual(told(NaN, NaN), ["unknown", ""]);
  assert.equal(readSharpness(null).zone, "unknown");
  assert.match(readSharpness(measured(0, 0.01)).note, /rises at once/);
  assert.match(readSharpness(measured(64, Infinity)).note, /did not rise up to 64 times/);
  assert.equal(sharpnessWords(measured(1, 1.01)), "sharpness 40.0, stable below 38.0");
  assert.match(sharpnessWords(measured(1, 1.01, { stability_threshold: NaN })), /no threshold is known/);
  assert.equal(sharpnessWords(measured(1, 1, { sharpness: NaN })), "");
  const newest = newestMeasured([measured(1, 2), measured(1, 3, { step: 8 }), measured(NaN, NaN, { step: 9 })]);
  assert.equal(newest.step, 8);
  assert.deepEqual([1e-9, 1e9].map(gaugePlace), [0, 1]);
  assert.ok(gaugePlace(0.5) < gaugePlace(1) && gaugePlace(1) < 1);
});

const overall = (outcome, change = {}) => ({
  unsupported: null,
  events: [],
  overall: { outcome, count: 9, helped: 5, hurt: 1, inconclusive: 3, mean: 0.0123, standard_error: 0.004, ...change },
});

test("the verdict is plain about what it does not know", () => {
  assert.match(tellVerdict(overall("helped")).words, /lower than after a raw one: by 0.0123 ± 0.0040/);
  assert.match(tellVerdict(overall("hurt", { mean: -0.5 })).words, /higher than after a raw one: by 0.500 ±/);
  const open = tellVerdict(overall("inconclusive", { standard_error: null }));
  assert.equal(open.title, "Inconclusive");
  assert.match(open.words, /standard error unknown.*too close to tell/);
  assert.equal(countWords(overall("helped")), "Of 9 probed clips 5 helped, 1 hurt, 3 inconclusive.");
  const unsupported = { unsupported: "Muon has no closed form.", events: [], overall: null };
  assert.equal(tellVerdict(unsupported).words, "Not supported: Muon has no closed form.");
  assert.equal(countWords(unsupported), "");
  assert.match(tellVerdict(undefined).title, /No clip was probed/);
  const event = { step: 1200, difference: -0.01, standard_error: null, batches: 1, outcome: "hurt" };
  assert.equal(eventWords(event), "step 1,200: raw less clipped −0.0100 (standard error unknown) over 1 batch, hurt");
});

test("captions say what the pictures are", () => {
  const surface = {
    step: 3000,
    about: { ...ABOUT, plane: "update", normalisation: "filter", seed: 4, levels: 9, hooks_left_out: 2 },
    nonfinite: 2,
    computed: 78,
    seconds: 4,
  };
  const counts = { capped: 2, missing: 3, wanted: 81, finer: 0 };
  assert.equal(
    captions.surfaceCaption(answer({ surface }), 4120, counts),
    "Surface at step 3,000; the model is now at step 4,120 · plane: update × gradient · 2 held-out batches · " +
      "eval mode · float32 · filter-normalised · seed 4 · buffers frozen at the anchor · 2 hooks left out · " +
      "78 of 81 points · 2.6 % capped · 3.7 % missing · 2 not finite · this surface 4 s · " +
      "probing so far 1 min 30 s, 0.9 % of the time · a slice, not the landscape",
  );
  const here = captions.surfaceCaption(
    answer({ surface: { ...surface, about: { normalisation: "none" } } }),
    3000,
    counts,
  );
  assert.match(here, /^Surface at step 3,000 · plane: unknown · not normalised/);
  const tape = { alpha: [0, 1], every: 4, count: 160, probes: [{ loss: [1, null] }, { loss: [NaN, 2] }] };
  const line = { about: ABOUT };
  assert.match(captions.tapeCaption(answer({ tape, line })), /every 4th of 160 probes · 2 held-out batches/);
  assert.match(captions.tapeCaption(answer({ tape, line })), /25.0 % not computed · 1 not finite/);
  assert.equal(captions.costWords({ seconds: null, share: null }), "");
  assert.equal(captions.costWords({ seconds: 9, share: null }), "probing so far 9 s");
  const shares = { explained: [0.871, 0.109], random_walk: [0.608, 0.152] };
  assert.equal(captions.explainedWords(shares), "98 % explained; pure noise would explain 76 %");
  assert.equal(
    captions.explainedWords({ ...shares, explained: [null, 0.1] }),
    "– explained; pure noise would explain 76 %",
  );
  const trajectory = {
    ...shares,
    step: [0, 500],
    every: 1,
    snapshots: 2,
    about: { ...ABOUT, k: 256, parameters: 1000 },
  };
  assert.match(
    captions.mapCaption(answer({ trajectory }), 1),
    /sketch of 256 numbers for 1,000 parameters.*50.0 % without a loss/,
  );
  assert.deepEqual([null, NaN, Infinity, 1.5].map(captions.lossWords), [
    "not computed",
    "NaN (not finite)",
    "+Inf (not finite)",
    "1.50000",
  ]);
});
