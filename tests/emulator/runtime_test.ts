import assert from "node:assert/strict";
import { builtPath, Cuda, Emulator } from "./library.ts";

const KIB = 1024, MIB = 1024 * KIB;

/** Launches rmsnorm over one row of 4 ones with one weight each. */
function launchSomething(cuda: Emulator, stream = 0n): { status: number; y: bigint } {
  const x = cuda.upload(Float32Array.of(1, 1, 1, 1));
  const y = cuda.malloc(16);
  return { status: cuda.fixtures.fixture_rmsnorm(y, x, x, 1n, 4n, 0, stream), y };
}

function openStream(cuda: Emulator): bigint {
  return cuda.create((out) => cuda.symbols.cudaStreamCreateWithFlags(out, Cuda.streamNonBlocking)).value;
}

Deno.test("cudaMalloc() fails beyond the set VRAM and leaves what was there usable", () => {
  using cuda = new Emulator("plain", "vram=8MiB,reserved=1MiB");
  const info = (): number[] => {
    const free = new BigUint64Array(1), total = new BigUint64Array(1);
    assert.equal(cuda.symbols.cudaMemGetInfo(free, total), Cuda.success);
    return [Number(free[0]), Number(total[0])];
  };
  assert.deepEqual(info(), [7 * MIB, 8 * MIB]);
  const first = cuda.malloc(6 * MIB);
  assert.equal(cuda.create((out) => cuda.symbols.cudaMalloc(out, BigInt(MIB + 1))).status, Cuda.memoryAllocation);
  assert.equal(cuda.symbols.cudaGetLastError(), Cuda.memoryAllocation);
  assert.equal(cuda.symbols.cudaGetLastError(), Cuda.success, "an allocation failure is not sticky");
  cuda.malloc(MIB);
  assert.deepEqual(info(), [0, 8 * MIB]);
  assert.equal(cuda.symbols.cudaFree(first), Cuda.success);
  assert.deepEqual(info(), [6 * MIB, 8 * MIB]);
  assert.equal(cuda.counts().devicePeakBytes, 7 * MIB);
});

Deno.test("device memory starts as NaN", () => {
  using cuda = new Emulator();
  assert.ok(cuda.download(cuda.malloc(400), new Float32Array(100)).every(Number.isNaN));
});

Deno.test("cudaGetDeviceCount() answers error 35 without a driver and error 100 without a device", () => {
  using cuda = new Emulator("plain", "driver=0");
  const value = new Int32Array(1);
  assert.equal(cuda.symbols.cudaGetDeviceCount(value), Cuda.insufficientDriver);
  assert.equal(cuda.create((out) => cuda.symbols.cudaMalloc(out, 16n)).status, Cuda.insufficientDriver);
  assert.equal(cuda.symbols.cudaDriverGetVersion(value), Cuda.success);
  assert.equal(value[0], 0);
  cuda.configure("driver=1,devices=0");
  assert.equal(cuda.symbols.cudaGetDeviceCount(value), Cuda.noDevice);
  assert.equal(value[0], 0);
});

Deno.test("devices have memory of their own, and a stream belongs to one of them", () => {
  using cuda = new Emulator("plain", "devices=2,vram=1MiB,compute_capability=9.0");
  const value = new Int32Array(1);
  assert.equal(cuda.symbols.cudaSetDevice(2), Cuda.invalidDevice);
  assert.equal(cuda.symbols.cudaDeviceGetAttribute(value, 75, 1), Cuda.success);
  assert.equal(value[0], 9);
  cuda.malloc(MIB);
  const stream = openStream(cuda);
  assert.equal(cuda.symbols.cudaSetDevice(1), Cuda.success);
  const there = cuda.malloc(MIB / 2);
  assert.equal(cuda.fixtures.fixture_transpose(there, there, stream), Cuda.invalidResourceHandle);
  assert.equal(cuda.symbols.cudaSetDevice(0), Cuda.success);
  assert.equal(cuda.fixtures.fixture_transpose(there, there, stream), Cuda.success);
  assert.notEqual(cuda.symbols.cudaDeviceSynchronize(), Cuda.success, "a kernel cannot reach another device's memory");
});

Deno.test("emu_configure() rejects what it does not know and changes nothing", () => {
  using cuda = new Emulator();
  assert.throws(() => cuda.configure("vram=1MiB,vrm=2MiB"), /no setting 'vrm'/);
  assert.throws(() => cuda.configure("vram=1MB"), /'1MB' is no value of vram/);
  assert.throws(() => cuda.configure("streams=fast"), /'fast' is no value of streams/);
  cuda.malloc(2 * MIB);
});

for (const n of [1, 2, 3]) {
  Deno.test(`fail_malloc=${n} fails that cudaMalloc alone`, () => {
    using cuda = new Emulator("plain", `fail_malloc=${n}`);
    const statuses = [1, 2, 3, 4].map(() => cuda.create((out) => cuda.symbols.cudaMalloc(out, 64n)).status);
    assert.deepEqual(statuses, [1, 2, 3, 4].map((i) => i === n ? Cuda.memoryAllocation : Cuda.success));
    assert.equal(cuda.counts().deviceAllocations, 3);
  });
}

Deno.test("fail_host_alloc fails page-locked memory, which has a count of its own", () => {
  using cuda = new Emulator("plain", "fail_host_alloc=2");
  cuda.malloc(64);
  cuda.malloc(64);
  const statuses = [1, 2, 3].map(() => cuda.create((out) => cuda.symbols.cudaMallocHost(out, 64n)).status);
  assert.deepEqual(statuses, [Cuda.success, Cuda.memoryAllocation, Cuda.success]);
});

Deno.test("fail_launch shows at the next synchronization, and the device answers nothing else from then on", () => {
  using cuda = new Emulator("plain", "fail_launch=2,fail_error=719,streams=lazy");
  assert.equal(launchSomething(cuda).status, Cuda.success);
  assert.equal(cuda.symbols.cudaDeviceSynchronize(), Cuda.success);
  const stream = openStream(cuda);
  const { status, y } = launchSomething(cuda, stream);
  assert.equal(status, Cuda.success, "the launch itself is accepted");
  assert.equal(cuda.symbols.cudaStreamSynchronize(stream), Cuda.launchFailure);
  assert.equal(cuda.create((out) => cuda.symbols.cudaMalloc(out, 64n)).status, Cuda.launchFailure);
  assert.throws(() => cuda.download(y, new Float32Array(4)), /error 719/);
  assert.equal(cuda.symbols.cudaGetLastError(), Cuda.launchFailure);
  assert.equal(cuda.symbols.cudaGetLastError(), Cuda.launchFailure, "reading a sticky error does not clear it");
  const before = cuda.counts();
  assert.equal(cuda.symbols.cudaFree(y), Cuda.launchFailure);
  assert.equal(cuda.symbols.cudaStreamDestroy(stream), Cuda.launchFailure);
  assert.equal(cuda.counts().deviceAllocations, before.deviceAllocations - 1, "what a failed program gives back is not a leak");
  assert.equal(cuda.counts().streams, 0);
});

Deno.test("fail_sync fails that synchronization and is sticky", () => {
  using cuda = new Emulator("plain", "fail_sync=2,fail_error=700");
  assert.equal(cuda.symbols.cudaDeviceSynchronize(), Cuda.success);
  assert.equal(cuda.symbols.cudaDeviceSynchronize(), 700);
  assert.equal(cuda.symbols.cudaDeviceSynchronize(), 700);
});

Deno.test("emu_counts() tells what was not given back", () => {
  using cuda = new Emulator();
  const stream = openStream(cuda);
  const event = cuda.create((out) => cuda.symbols.cudaEventCreate(out)).value;
  const memory = cuda.malloc(1000);
  const host = cuda.create((out) => cuda.symbols.cudaMallocHost(out, 5000n)).value;
  const { deviceAllocations, deviceBytes, hostAllocations, hostBytes, streams, events } = cuda.counts();
  assert.deepEqual([deviceAllocations, deviceBytes, hostAllocations, hostBytes, streams, events], [1, 1000, 1, 5000, 1, 1]);
  assert.equal(cuda.symbols.cudaFree(memory), Cuda.success);
  assert.equal(cuda.symbols.cudaFreeHost(host), Cuda.success);
  assert.equal(cuda.symbols.cudaEventDestroy(event), Cuda.success);
  assert.equal(cuda.symbols.cudaStreamDestroy(stream), Cuda.success);
  assert.equal(cuda.symbols.cudaStreamSynchronize(stream), Cuda.invalidResourceHandle);
  const after = cuda.counts();
  assert.deepEqual([after.deviceAllocations, after.hostAllocations, after.streams, after.events], [0, 0, 0, 0]);
  assert.match(cuda.report(), /a stream that was never created or is destroyed/);
});

Deno.test("copies from and to pageable memory are counted", () => {
  using cuda = new Emulator();
  cuda.download(cuda.upload(Float32Array.of(1, 2, 3)), new Float32Array(3));
  assert.equal(cuda.counts().unpinnedCopies, 2);
});

Deno.test("a lazy stream runs when it is asked, one step a query, and events tell the time between", () => {
  using cuda = new Emulator("plain", "streams=lazy");
  const stream = openStream(cuda);
  const [start, stop] = [0, 1].map(() => cuda.create((out) => cuda.symbols.cudaEventCreate(out)).value);
  assert.equal(cuda.symbols.cudaEventRecord(start, stream), Cuda.success);
  launchSomething(cuda, stream);
  assert.equal(cuda.symbols.cudaEventRecord(stop, stream), Cuda.success);
  assert.equal(cuda.counts().pendingOperations, 3);
  const ms = new Float32Array(1);
  assert.equal(cuda.symbols.cudaEventElapsedTime(ms, start, stop), Cuda.notReady);
  assert.equal(cuda.symbols.cudaEventQuery(stop), Cuda.notReady);
  assert.equal(cuda.counts().pendingOperations, 2);
  assert.equal(cuda.symbols.cudaEventQuery(stop), Cuda.notReady);
  assert.equal(cuda.symbols.cudaEventQuery(stop), Cuda.notReady);
  assert.equal(cuda.symbols.cudaEventQuery(stop), Cuda.success);
  assert.equal(cuda.symbols.cudaEventElapsedTime(ms, start, stop), Cuda.success);
  assert.ok(ms[0] > 0 && ms[0] < 10_000, `${ms[0]} ms`);
});

Deno.test("a wait holds for the record that was the latest when it was enqueued, streams=lazy", () => {
  using cuda = new Emulator("plain", "streams=lazy");
  const [first, second] = [openStream(cuda), openStream(cuda)];
  const event = cuda.create((out) => cuda.symbols.cudaEventCreate(out)).value;
  const { y } = launchSomething(cuda, first);
  cuda.symbols.cudaEventRecord(event, first);
  cuda.symbols.cudaStreamWaitEvent(second, event, 0);
  cuda.symbols.cudaEventRecord(event, second); // a later record must not satisfy the wait before it
  assert.equal(cuda.symbols.cudaStreamSynchronize(second), Cuda.success);
  assert.equal(cuda.counts().pendingOperations, 0);
  assert.deepEqual(cuda.download(y, new Float32Array(4)), Float32Array.of(1, 1, 1, 1));
});

Deno.test("calls may come from many threads at once", async () => {
  using cuda = new Emulator("plain", "streams=random,seed=5");
  const path = builtPath("plain", "libcudart_emu.so");
  const threaded = Deno.dlopen(path, { cudaStreamSynchronize: { parameters: ["u64"], result: "i32", nonblocking: true } });
  const runs = Array.from({ length: 24 }, () => {
    const stream = openStream(cuda);
    const { status, y } = launchSomething(cuda, stream);
    return { status, y, synchronized: threaded.symbols.cudaStreamSynchronize(stream) };
  });
  for (const { status, y, synchronized } of runs) {
    assert.deepEqual([status, await synchronized], [Cuda.success, Cuda.success]);
    assert.deepEqual(cuda.download(y, new Float32Array(4)), Float32Array.of(1, 1, 1, 1));
  }
  threaded.close();
});
