import assert from "node:assert/strict";
import { Context } from "../../lib/ffi/context.ts";
import { Ops } from "../../lib/ffi/ops.ts";
import { Pacing } from "../../lib/stream/pacing.ts";
import { Transfer } from "../../lib/stream/transfer.ts";
import { emulatedTest } from "./emulated_device.ts";

emulatedTest("Pacing keeps a host that enqueues without end a few hundred operations ahead of the device", async (emulated) => {
  // On lazy streams nothing runs that nobody waits for.
  emulated.configure("streams=lazy");
  {
    using context = Context.open({ kind: "cuda" });
    using stream = context.stream();
    using transfer = new Transfer(context, stream);
    using buffer = context.deviceBuffer(4096);
    const ops = new Ops(stream), pacing = new Pacing(transfer);
    let most = 0, waits = 0;
    for (let step = 0; step < 3000; step++) {
      const device = pacing.step();
      if (device) {
        waits++;
        await device;
      }
      ops.fill(buffer.address, step % 256, 4096);
      most = Math.max(most, emulated.counts.pendingOperations);
    }
    assert.ok(most > 200 && most < 400, `${most} operations waited at a time`);
    assert.ok(waits > 30 && waits < 50, `${waits} waits`);
    await stream.synchronize();
    pacing.reset();
  }
  emulated.assertClean("pacing");
});
