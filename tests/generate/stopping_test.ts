import assert from "node:assert/strict";
import { UsageError } from "../../lib/errors.ts";
import { Random } from "../../lib/generate/random.ts";
import { StopStrings } from "../../lib/generate/stopping.ts";

/** Pushes pieces and returns what came out, and whether a stop string was found. */
function run(stops: string[], pieces: string[]): { text: string; found: boolean; outputs: string[] } {
  const matcher = new StopStrings(stops);
  const outputs = pieces.map((piece) => matcher.push(piece));
  const { found } = matcher;
  outputs.push(matcher.flush());
  return { text: outputs.join(""), found, outputs };
}

Deno.test("StopStrings finds a stop string across pieces and gives out all text before it", () => {
  assert.deepEqual(run(["STOP"], ["one S", "TO", "P two"]), { text: "one ", found: true, outputs: ["one ", "", "", ""] });
  assert.deepEqual(run(["\n\n"], ["a\n", "b\n", "\nc"]).text, "a\nb");
  assert.deepEqual(run(["x"], ["x"]), { text: "", found: true, outputs: ["", ""] });
});

Deno.test("StopStrings holds back only what may begin a stop string, and loses none of it", () => {
  assert.deepEqual(run(["STOP"], ["one S", "T", "andard"]), {
    text: "one STandard",
    found: false,
    outputs: ["one ", "", "STandard", ""],
  });
  assert.deepEqual(run(["STOP"], ["the STO"]), { text: "the STO", found: false, outputs: ["the ", "STO"] });
  assert.deepEqual(run([], ["a", "b"]), { text: "ab", found: false, outputs: ["a", "b", ""] });
  assert.deepEqual(run(["aab"], ["aaab"]), { text: "a", found: true, outputs: ["a", ""] });
});

Deno.test("StopStrings takes the stop string that is complete first", () => {
  assert.equal(run(["abcd", "bc"], ["xabcdy"]).text, "xa");
  assert.equal(run(["c", "abc"], ["xabc"]).text, "x");
});

Deno.test("StopStrings gives the same text wherever the pieces end, 3000 random texts over a small alphabet", () => {
  const random = new Random(1);
  const text = (length: number) => Array.from({ length }, () => "ab·"[random.uint32() % 3]).join("");
  let found = 0;
  for (let round = 0; round < 3000; round++) {
    const stops = Array.from({ length: 1 + random.uint32() % 3 }, () => text(1 + random.uint32() % 4));
    const whole = text(20);
    const ends = stops.map((stop) => whole.indexOf(stop) + stop.length).filter((_, i) => whole.includes(stops[i]));
    const end = Math.min(...ends);
    const expected = ends.length === 0
      ? whole
      : whole.slice(0, Math.min(...stops.filter((stop) => whole.slice(0, end).endsWith(stop)).map((stop) => end - stop.length)));
    if (ends.length > 0) found++;
    const pieces: string[] = [];
    for (let at = 0; at < whole.length;) {
      const length = 1 + random.uint32() % 5;
      pieces.push(whole.slice(at, at += length));
    }
    const result = run(stops, pieces);
    assert.equal(result.text, expected, JSON.stringify({ stops, pieces }));
    assert.equal(result.found, ends.length > 0);
  }
  assert.ok(found > 500 && found < 3000);
});

Deno.test("StopStrings refuses an empty stop string", () => {
  assert.throws(() => new StopStrings(["a", ""]), UsageError);
});
