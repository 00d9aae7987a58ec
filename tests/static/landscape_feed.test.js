// When a run's landscape is fetched, and from where.
import assert from "node:assert/strict";
import { test } from "node:test";
import { LandscapeFeed, landscapePath } from "../../static/scripts/landscape_feed.js";
import { parseRoute } from "../../static/scripts/route.js";
import { initialState, reduce } from "../../static/scripts/state.js";

test("the address carries what is chosen and the steps in view", () => {
  const path = (hash, surface = null, range = null) => landscapePath(parseRoute(hash), surface, range);
  assert.equal(path("#/run/r"), "api/runs/r/landscape?columns=300");
  assert.equal(path("#/run/a%2Fb?attempt=2", 0), "api/runs/a%2Fb/landscape?columns=300&surface=0&attempt=2");
  assert.equal(path("#/run/r", null, [-3.2, 9.6]), "api/runs/r/landscape?columns=300&first=0&last=10");
});

/** A page on run r, whose fetches are counted; `document` stands in for the browser's. */
function opened() {
  const page = { hidden: false, listeners: [] };
  page.addEventListener = (_, listener) => page.listeners.push(listener);
  globalThis.document = page;
  let state = reduce(initialState(parseRoute("#/run/r"), 0), { type: "run", run: { id: "r", state: "running" } });
  const sent = [];
  const send = (message) => (sent.push(message), (state = reduce(state, message)));
  const fetched = [];
  globalThis.fetch = async (path, options) => {
    fetched.push([path, options]);
    return page.answer ?? { ok: true, json: async () => ({ surfaces: [] }) };
  };
  const feed = new LandscapeFeed(
    () => state,
    send,
    (what) => what(),
  );
  return { feed, page, fetched, sent };
}
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

test("many notices make one fetch a second; the first comes at once and none is lost", async () => {
  const { feed, fetched } = opened();
  for (let at = 0; at < 20; at++) feed.hear({ type: "run", run: { id: "r" }, landscape: true });
  feed.hear({ type: "run", run: { id: "other" }, landscape: true });
  feed.hear({ type: "heartbeat", time: 1 });
  await pause(60);
  assert.equal(fetched.length, 1);
  for (let at = 0; at < 20; at++) feed.hear({ type: "run", run: { id: "r" }, landscape: true });
  await pause(500);
  assert.equal(fetched.length, 1);
  await pause(600);
  assert.equal(fetched.length, 2);
});

test("a server that takes long is asked less often", async () => {
  const { feed, page, fetched } = opened();
  page.answer = { ok: true, json: () => pause(400).then(() => ({ surfaces: [] })) };
  feed.loadSoon();
  await pause(450);
  feed.loadSoon();
  await pause(900);
  assert.equal(fetched.length, 1, "1.35 s after the first, which took 0.4 s");
  await pause(500);
  assert.equal(fetched.length, 2);
});

test("a hidden tab fetches nothing until it is looked at", async () => {
  const { feed, page, fetched } = opened();
  page.hidden = true;
  feed.hear({ type: "landscape", run: "r" });
  await pause(30);
  assert.equal(fetched.length, 0);
  page.hidden = false;
  page.listeners.forEach((listener) => listener());
  await pause(30);
  assert.equal(fetched.length, 1);
});

test("asking for a surface tells what the server said", async () => {
  const { feed, page, fetched, sent } = opened();
  page.answer = { ok: true, json: async () => ({ id: "ab" }) };
  await feed.ask({ plane: "random", levels: 33, seed: 5 });
  assert.equal(fetched[0][0], "api/runs/r/control");
  assert.equal(fetched[0][1].method, "POST");
  const body = JSON.parse(fetched[0][1].body);
  assert.deepEqual(body, { command: "probe_landscape", plane: "random", levels: 33, seed: 5 });
  page.answer = { ok: false, status: 409, json: async () => ({ detail: "The training is not connected." }) };
  await feed.ask({ plane: "update", levels: 9, seed: 0 });
  const told = sent
    .filter(({ type }) => type === "landscape-asked")
    .map(({ asked }) => [asked.phase, asked.id, asked.text]);
  assert.deepEqual(told, [
    ["sending", "", ""],
    ["asked", "ab", ""],
    ["sending", "", ""],
    ["refused", "", "The training is not connected."],
  ]);
});

test("the surface that was asked for is chosen when it has begun, once", async () => {
  const { feed, page, fetched, sent } = opened();
  page.answer = { ok: true, json: async () => ({ id: "ab" }) };
  await feed.ask({ plane: "random", levels: 9, seed: 5 });
  const entry = { probe: 7, step: 3, plane: "random", levels: 9, computed: 1, request: "ab" };
  page.answer = { ok: true, json: async () => ({ surfaces: [{ ...entry, probe: 1, request: "" }, entry] }) };
  await feed.load();
  feed.choose(null); // by hand: not to be undone
  await feed.load();
  const chosen = sent.filter(({ type }) => type === "landscape-surface").map(({ surface }) => surface);
  assert.deepEqual(chosen, [7, null]);
  assert.ok(fetched.length >= 3);
});
