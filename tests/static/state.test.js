import assert from "node:assert/strict";
import { test } from "node:test";
import { Kind } from "../../static/scripts/frames.js";
import { linkWords } from "../../static/scripts/parts/notices.js";
import { parseRoute } from "../../static/scripts/route.js";
import { initialState, nonfiniteSteps, openAlerts, reduce, runWord } from "../../static/scripts/state.js";
import { cursorInView, visibleRange } from "../../static/scripts/visible.js";
import { frame, notice } from "./tables.js";

const RUN = { id: "r", state: "running", last_step: 3, alerts: { open: 0 }, attempt: 1 };
const alert = (change = {}) => ({
  id: 1,
  run: "r",
  severity: "critical",
  state: "open",
  first_step: 5,
  last_step: 5,
  title: "t",
  text: "",
  count: 1,
  layers: [],
  ...change,
});

/** A run page that asked for its view (request 1) and tail (request 2). */
function opened(hash = "#/run/r") {
  return [
    { type: "subscribed", channel: "view", request: 1 },
    { type: "subscribed", channel: "tail", request: 2 },
    { type: "run", run: RUN },
  ].reduce(reduce, initialState(parseRoute(hash), 100));
}
const hear = (state, read, channel = "view", at = 100) => reduce(state, { type: "frame", channel, frame: read, at });
const tell = (state, header, channel) => hear(state, notice(header), channel);

test("an unknown message changes nothing, nor does a name every object has", () => {
  const state = opened();
  assert.equal(reduce(state, { type: "nonsense" }), state);
  assert.equal(reduce(state, { type: "toString" }), state);
});

test("a snapshot fills the view and a delta goes on from it", () => {
  let state = hear(opened(), frame([0, 1], { loss: [[1], [2]] }, { last_step: 1 }));
  assert.equal(state.view.loading, false);
  state = hear(state, frame([1, 2], { loss: [[5], [6]] }, { kind: Kind.DELTA, last_step: 9 }));
  assert.deepEqual([...state.view.table.series.get("loss").mean], [1, 5, 6]);
  assert.equal(state.run.last_step, 9);
  assert.deepEqual(visibleRange(state), [0, 3], "a running run has room for the next step");
  assert.deepEqual(visibleRange({ ...state, run: { ...RUN, state: "finished" } }), [0, 2]);
});

test("answers to an older question, or for another run, are left alone", () => {
  const state = reduce(opened(), { type: "subscribed", channel: "view", request: 8 });
  assert.equal(hear(state, frame([0], { loss: [[1]] }, { request: 1 })), state);
  assert.equal(hear(state, frame([0], { loss: [[1]] }, { request: 8, run: "other" })), state);
});

test("parts of a snapshot show when all have come, in any order; the old view stays until then", () => {
  let state = hear(opened(), frame([9], { loss: [[9]] }));
  state = reduce(state, { type: "subscribed", channel: "view", request: 3 });
  const part = (at) => frame([at * 2, at * 2 + 1], { loss: [[1], [1]] }, { request: 3, part: at, parts: 3 });
  state = hear(hear(state, part(2)), part(0));
  assert.deepEqual([...state.view.table.first], [9]);
  state = hear(state, part(1));
  assert.deepEqual([...state.view.table.first], [0, 1, 2, 3, 4, 5]);
  assert.equal(state.view.loading, false);
});

test("following a span shows the newest steps and forgets those long past", () => {
  let state = opened("#/run/r?span=100");
  state = hear(state, frame([...Array(100).keys()], { loss: Array(100).fill([1]) }));
  for (let step = 100; step < 1000; step++) state = hear(state, frame([step], { loss: [[1]] }, { kind: Kind.DELTA }));
  assert.deepEqual(visibleRange(state), [900, 999]);
  assert.ok(state.view.table.first.length <= 400);
});

test("a range stands still, a pan goes before it", () => {
  let state = opened("#/run/r?first=10&last=20&step=12");
  assert.deepEqual(visibleRange(state), [10, 20]);
  assert.equal(state.cursor, null);
  state = reduce(state, { type: "panning", range: [11, 21] });
  assert.deepEqual(visibleRange(state), [11, 21]);
  state = reduce(state, { type: "route", route: parseRoute("#/run/r?first=30&last=40&step=33") });
  assert.deepEqual([visibleRange(state), state.cursor], [[30, 40], 33]);
});

test("the step of an address goes with it; a crosshair out of view is none", () => {
  let state = reduce(opened("#/run/r?first=0&last=9"), {
    type: "route",
    route: parseRoute("#/run/r?first=0&last=9&step=5"),
  });
  assert.equal(cursorInView(state), 5);
  state = reduce(state, { type: "cursor", step: 20 });
  assert.equal(cursorInView(state), null);
  state = reduce(state, { type: "cursor", step: 5 });
  state = reduce(state, { type: "route", route: parseRoute("#/run/r") });
  assert.equal(state.cursor, null);
});

test("another run or attempt starts from nothing", () => {
  const state = hear(opened(), frame([0], { loss: [[1]] }));
  for (const hash of ["#/run/other", "#/run/r?attempt=1", "#/"]) {
    const next = reduce(state, { type: "route", route: parseRoute(hash) });
    assert.equal(next.view.table.first.length, 0);
    assert.equal(next.run, null);
  }
});

test("a new alert makes one toast; more of it changes the toast; acknowledged it goes", () => {
  let state = tell(opened(), { type: "alert", alert: alert() });
  state = tell(state, { type: "alert", alert: alert({ count: 4 }) });
  assert.deepEqual(
    state.toasts.map((toast) => toast.alert.count),
    [4],
  );
  assert.equal(openAlerts(state), 1);
  state = reduce(state, { type: "dismiss", id: 1 });
  state = tell(state, { type: "alert", alert: alert({ count: 5 }) });
  assert.equal(state.toasts.length, 0);
  state = reduce(state, { type: "acknowledged", alert: alert({ state: "acknowledged" }) });
  assert.equal(openAlerts(state), 0);
  state = tell(state, { type: "alert", alert: alert() });
  assert.equal(state.toasts.length, 1, "re-opened is news again");
  assert.equal(tell(state, { type: "alert", alert: alert({ id: 2, run: "other" }) }), state);
});

test("the second socket's copies of notices are not counted twice", () => {
  const event = { type: "event", event: { run: "r", step: 1, kind: "user", name: "x", text: "" } };
  const state = tell(tell(opened(), event), event, "tail");
  assert.equal(state.events.length, 1);
});

test("run notices update page and list; a deleted run says so", () => {
  let state = reduce(opened(), { type: "runs", runs: [RUN, { id: "s" }], total: 2 });
  state = tell(state, { type: "run", run: { ...RUN, state: "failed", reason: "why" } });
  assert.equal(state.run.state, "failed");
  assert.equal(state.list.runs[0].reason, "why");
  state = tell(state, { type: "deleted", run: "r" });
  assert.equal(state.problem.kind, "deleted");
  assert.deepEqual([state.list.runs.length, state.list.total], [1, 1]);
});

test("heartbeats tell the server's clock", () => {
  assert.equal(hear(opened(), notice({ type: "heartbeat", time: 105 }), "view", 100).offset, 5);
});

test("non-finite steps: the run's count, or the tail's when it knows more", () => {
  let state = hear(opened(), frame([7, 8], { loss: [[1], [NaN]] }, { request: 2 }), "tail");
  assert.equal(nonfiniteSteps(state), 1);
  state = reduce(state, { type: "nonfinite", run: "r", steps: 6 });
  assert.equal(nonfiniteSteps(state), 6);
  assert.equal(nonfiniteSteps(opened()), null);
});

test("a running run without steps is waiting", () => {
  assert.equal(runWord({ ...RUN, last_step: null }), "waiting");
  assert.equal(runWord(RUN), "running");
});

test("a lost connection says so in words, with the age of what is shown", () => {
  let state = reduce(opened(), { type: "heard", at: 88 });
  state = reduce(state, { type: "link", phase: "waiting", retryAt: 103 });
  assert.equal(linkWords(state), "Connection lost; reconnecting in 3 s; what you see is 12 s old");
  state = reduce(state, { type: "link", phase: "open" });
  assert.equal(linkWords(state), "");
  assert.match(linkWords(reduce(state, { type: "clock", now: 110 })), /^Stale: the server has said nothing for 22 s/);
});

test("an event that is both listed and told is there once, and none that was told is lost", () => {
  const event = (step) => ({ run: "r", step, time: 5, kind: "user", name: "x", text: "" });
  const told = (state, step) => tell(state, { type: "event", event: event(step) });
  const listed = (state, ...steps) => reduce(state, { type: "events", run: "r", events: steps.map(event) });
  const steps = (state) => state.events.map(({ step }) => step);
  assert.deepEqual(steps(told(listed(opened(), 1, 2), 2)), [1, 2]);
  assert.deepEqual(steps(told(listed(opened(), 1, 2), 3)), [1, 2, 3]);
  assert.deepEqual(steps(listed(told(told(opened(), 2), 3), 1, 2)), [1, 2, 3]);
});
