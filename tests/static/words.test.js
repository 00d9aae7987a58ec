// Numbers in words, addresses, subscriptions and the wait before a reconnect.
import assert from "node:assert/strict";
import { test } from "node:test";
import { wholeSteps } from "../../static/scripts/actions.js";
import { retryDelay } from "../../static/scripts/connection.js";
import { viewSubscription } from "../../static/scripts/feed.js";
import {
  formatAge,
  formatDuration,
  formatRate,
  formatShare,
  formatSteps,
  formatValue,
  parseNumber,
  shortenName,
} from "../../static/scripts/format.js";
import { formatRoute, parseRoute, runAddressOf } from "../../static/scripts/route.js";

test("values keep their size and say when they are not finite", () => {
  const cases = [
    [null, "–"],
    [undefined, "–"],
    [NaN, "NaN"],
    [Infinity, "+Inf"],
    [-Infinity, "−Inf"],
    [0, "0"],
    [1.23456, "1.235"],
    [-0.5, "−0.5000"],
    [12345.6, "12,350"],
    [123456, "123,500"],
    [1e20, "1.00e20"],
    [0.00012345, "1.23e-4"],
  ];
  for (const [value, text] of cases) assert.equal(formatValue(value), text.replace("-", "−"), String(value));
});

test("JSON's words for numbers that are not finite", () => {
  assert.deepEqual(["NaN", "Infinity", "-Infinity", null, 3, "x"].map(parseNumber), [
    NaN,
    Infinity,
    -Infinity,
    null,
    3,
    null,
  ]);
});

test("shares, durations, ages and rates", () => {
  assert.deepEqual([0, 0.0004, 0.125, 1, NaN, undefined].map(formatShare), [
    "0 %",
    "<0.1 %",
    "12.5 %",
    "100 %",
    "–",
    "–",
  ]);
  assert.deepEqual([0.25, 8, 59, 200, 3600 * 5 + 120, 86400 * 3, Infinity].map(formatDuration), [
    "0.3 s",
    "8 s",
    "59 s",
    "3 min 20 s",
    "5 h 2 min",
    "3 d 0 h",
    "–",
  ]);
  assert.deepEqual([0.4, 12.7, 509, 7300, 9e5, null].map(formatAge), [
    "now",
    "12 s ago",
    "8 min ago",
    "2 h ago",
    "10 d ago",
    "–",
  ]);
  assert.deepEqual([0.05, 0.001, 2, 60, 0, undefined].map(formatRate), [
    "20.0 it/s",
    "1000 it/s",
    "0.500 it/s",
    "1 min 0 s/it",
    "–",
    "–",
  ]);
  assert.deepEqual([formatSteps(3, 3), formatSteps(0, 12345)], ["step 3", "steps 0 – 12,345"]);
});

test("a name is cut at its beginning, at a dot where one is near", () => {
  assert.equal(shortenName("short", 10), "short");
  assert.equal(shortenName("transformer.blocks.11.mlp.weight", 22), "…blocks.11.mlp.weight");
  assert.equal(shortenName("averyveryverylongname", 8), "…ongname");
});

test("every address is read back as it was written", () => {
  const hashes = [
    "#/",
    "#/?q=a+b",
    "#/run/abc",
    "#/run/a%2Fb",
    "#/run/abc?first=3&last=90&step=7",
    "#/run/abc?span=200&attempt=2",
    runAddressOf("x", 3),
  ];
  for (const hash of hashes) assert.equal(formatRoute(parseRoute(hash)), hash);
});

test("odd addresses fall back to something sensible", () => {
  assert.deepEqual(parseRoute(""), { name: "list", query: "" });
  assert.deepEqual(parseRoute("#/nowhere/x"), { name: "list", query: "" });
  for (const hash of [
    "#/run/a?first=9&last=3",
    "#/run/a?first=-1&last=3",
    "#/run/a?first=1e3&last=x",
    "#/run/a?span=0",
  ])
    assert.deepEqual(parseRoute(hash).view, { mode: "all" });
  assert.equal(parseRoute("#/run/%E0%A4%A").run, "%E0%A4%A");
});

test("a dragged range becomes whole steps, never fewer than two", () => {
  assert.deepEqual(wholeSteps([3.2, 9.9]), [4, 9]);
  assert.deepEqual(wholeSteps([9.9, 3.2]), [4, 9]);
  assert.deepEqual(wholeSteps([-7, 3.5]), [0, 3]);
  assert.deepEqual(wholeSteps([5.1, 5.2]), [6, 7]);
});

test("a subscription asks at pixel resolution, with room on the left for the clip ratio", () => {
  const ask = (hash, layers = 10) => viewSubscription(parseRoute(hash), 900, layers);
  assert.deepEqual(ask("#/run/r"), {
    run: "r",
    attempt: null,
    rank: null,
    columns: 900,
    layers: true,
    follow: true,
    first: null,
    last: null,
    span: null,
  });
  const range = ask("#/run/r?first=1000&last=2799");
  assert.deepEqual([range.first, range.last, range.follow, range.columns], [800, 2799, false, 1000]);
  assert.deepEqual([ask("#/run/r?span=1800").span, ask("#/run/r?span=1800").columns], [2000, 1000]);
  assert.equal(ask("#/run/r?first=50&last=60").first, 0);
  assert.equal(ask("#/run/r", 16384).columns, 128, "very many layers: fewer columns");
});

test("the wait before a reconnect doubles up to 15 s, with jitter", () => {
  const longest = [0, 1, 2, 3, 4, 5, 6, 50].map((attempt) => retryDelay(attempt, () => 1));
  assert.deepEqual(longest, [0.5, 1, 2, 4, 8, 15, 15, 15]);
  assert.equal(
    retryDelay(3, () => 0),
    2,
  );
});
