/**
 * Works on a model of the test's hub as a child process, for the test to kill: `pull_child.ts pull ID` or `pull_child.ts quantize ID OUT`. Says
 * how far the download is, a line an event.
 */
import { openSnapshot } from "../../lib/hub/snapshot.ts";
import { quantizeCheckpoint } from "../../lib/shard/quantizer.ts";

const [action, id, out] = Deno.args;
const say = (progress: { phase: string; doneBytes: number }) => console.log(`${progress.phase} ${progress.doneBytes}`);
const snapshot = await openSnapshot(id, { retryPolicy: { firstPauseMs: 1 }, onProgress: say });
if (action === "pull") await snapshot.weights.pull();
else {
  await quantizeCheckpoint({
    source: snapshot.path,
    supply: snapshot.weights,
    out,
    compression: "q8",
    deleteOriginal: true,
    onProgress: say,
  });
}
console.log("done");
