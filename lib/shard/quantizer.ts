/**
 * Turns a checkpoint into a shard directory, in bounded memory, resumable after any kind of end.
 *
 * Files appear one by one under their real names when they are whole and durable; a journal says which are done and of what source; the
 * manifest comes last. A directory without manifest is not a model.
 * @module
 */
import { createHash } from "node:crypto";
import fs from "node:fs";
import { dirname, join, resolve } from "node:path";
import { type Checkpoint, openCheckpoint } from "../checkpoint/checkpoint.ts";
import { removeCheckpointFile } from "../checkpoint/remove_file.ts";
import { tokenizerFileNames } from "../checkpoint/tokenizer_files.ts";
import type { WeightSupply } from "../checkpoint/weight_supply.ts";
import { encodedTensors } from "../encodings/registry.ts";
import { AirkernError, BudgetError, FormatError, UsageError } from "../errors.ts";
import { Context } from "../ffi/context.ts";
import { quantizedBytesBound } from "../ffi/quantize.ts";
import { baselineBytes } from "../memory/budget.ts";
import { formatBytes } from "../memory/bytes.ts";
import { architectureFor } from "../models/registry.ts";
import { cancelledError, GroupQuantizer, inSourceOrder, quantizingBytes } from "./group_quantizer.ts";
import { Journal } from "./journal.ts";
import { type Compression, GENERATOR, type Manifest, MANIFEST_FILE } from "./manifest.ts";
import { type GroupJob, planQuantization, type QuantizePlan } from "./quantize_plan.ts";
import { isShardDirectory, openShards, type ShardDirectory } from "./reader.ts";
import { manifestFigures, type QuantizeReport } from "./report.ts";
import { SourceRemoval } from "./source_removal.ts";
import { verifyShards } from "./verify.ts";
import { PARTIAL_SUFFIX, writeError, writeManifest, writeWhole } from "./writer.ts";

/** Disk space kept for the journal and the manifest beside the shard files. */
const MANIFEST_RESERVE_BYTES = 8 * 1024 * 1024;

/** How far a quantization is. */
export interface QuantizeProgress {
  /** `wait`: another process is writing the same directory. `verify`: the output is reread before the source is deleted. */
  phase: "wait" | "quantize" | "verify";
  /** Bytes of the source (of the output when verifying), with what an earlier run had done. */
  doneBytes: number;
  /** Bytes when all is done. */
  totalBytes: number;
  /** The tensor at work, or "". */
  tensor: string;
}

/** Options of {@linkcode quantizeCheckpoint}. */
export interface QuantizeOptions {
  /** Directory of the checkpoint, or a GGUF file. */
  source: string;
  /** Directory to write, new or empty or left by an interrupted run. */
  out: string;
  /** Format of the linear layers; `none` keeps the source's types. */
  compression: Compression;
  /** Threads to quantize on; default one a core. */
  threads?: number;
  /** Brings weight files that are not in `source` yet, each when the first layer needs it. */
  supply?: WeightSupply;
  /** Budget of the whole process: what needs more is refused before it starts. Without it, memory is bounded by a few chunks all the same. */
  ramBytes?: number;
  /**
   * Remove the source's safetensors files once all of their tensors are verified in the output: at the end, or where they are supplied, each as
   * soon as no layer needs it any more.
   */
  deleteOriginal?: boolean;
  /** Is told where the work begins and of each extent that is done. */
  onProgress?: (progress: QuantizeProgress) => void;
  /** Stops soon after it is aborted; what is finished is kept for the next run. */
  signal?: AbortSignal;
  /** @ignore Free bytes of the disk that holds a path; for tests. */
  freeBytes?: (path: string) => number;
}

/** Waits until no other process writes the directory. The lock is the system's, so a killed process leaves none behind. */
async function lockDirectory(path: string, options: QuantizeOptions): Promise<Disposable> {
  const handle = Deno.openSync(path);
  try {
    while (!handle.tryLockSync(true)) {
      if (options.signal?.aborted) throw cancelledError();
      options.onProgress?.({ phase: "wait", doneBytes: 0, totalBytes: 0, tensor: "" });
      await new Promise((wake) => setTimeout(wake, 250));
    }
    return handle;
  } catch (error) {
    handle.close();
    throw error;
  }
}

/** Returns the output that is already there, if any. */
async function completeOutput(
  out: string,
  checkpoint: Checkpoint,
  compression: Compression,
): Promise<ShardDirectory | undefined> {
  if (!isShardDirectory(out)) return undefined;
  const shards = await openShards(out);
  const { source, compression: found } = shards.manifest;
  if (source.revision !== checkpoint.revision || found !== compression) {
    throw new UsageError(
      `Cannot quantize into ${out}: it holds ${source.name} (${source.revision}) as ${found}, ` +
        `asked for ${checkpoint.name} (${checkpoint.revision}) as ${compression}; choose another directory`,
    );
  }
  return shards;
}

function checkMemory(source: string, plan: QuantizePlan, ramBytes: number | undefined): void {
  const needed = baselineBytes() + quantizingBytes(plan.groups);
  if (ramBytes === undefined || needed <= ramBytes) return;
  throw new BudgetError(
    `Cannot quantize ${source}: need at least ${formatBytes(needed)} of memory, the budget is ${formatBytes(ramBytes)}; ` +
      `quantize it beforehand with a larger one`,
  );
}

/** Returns the source files that groups are made from. */
function sourceFiles(groups: readonly GroupJob[]): number[] {
  return [...new Set(groups.flatMap(({ tensors }) => tensors.flatMap(({ source }) => source.files)))].sort((a, b) => a - b);
}

/** Returns the most bytes that supplied files will take on disk beyond what they take now. */
function suppliedBytes(checkpoint: Checkpoint, unfinished: readonly GroupJob[], deleteOriginal: boolean): number {
  const names = sourceFiles(unfinished).map((file) => checkpoint.files[file].name);
  const missing = [...checkpoint.supply?.expect(names).values() ?? []];
  // Where each goes before the next one comes, the largest decides.
  return missing.reduce((sum, bytes) => deleteOriginal ? Math.max(sum, bytes) : sum + bytes, 0);
}

/** Checks that the output fits its disk, and what is downloaded the disk of its cache, which may be the same. */
function checkDiskSpace(
  checkpoint: Checkpoint,
  out: string,
  plan: QuantizePlan,
  journal: Journal,
  deleteOriginal: boolean,
  freeBytes = freeBytesOf,
): void {
  const unfinished = plan.groups.filter((group) => !journal.finished(group.file));
  const outBytes = unfinished.reduce((sum, group) => sum + group.maxBytes, MANIFEST_RESERVE_BYTES);
  const needs = [{ path: out, bytes: outBytes, action: `quantize into ${out}` }];
  const downloadBytes = suppliedBytes(checkpoint, unfinished, deleteOriginal);
  if (downloadBytes > 0) {
    const path = checkpoint.supply!.directory;
    if (fs.statSync(path).dev === fs.statSync(out).dev) needs[0].bytes += downloadBytes;
    else needs.push({ path, bytes: downloadBytes, action: `download into ${path}` });
  }
  for (const { path, bytes, action } of needs) {
    const free = freeBytes(path);
    if (free >= bytes) continue;
    throw new BudgetError(`Cannot ${action}: ${formatBytes(free)} are free on its disk, required ${formatBytes(bytes)}`);
  }
}

function freeBytesOf(path: string): number {
  const { bavail, bsize } = fs.statfsSync(path);
  return bavail * bsize;
}

/** Copies the tokenizer's files and returns their entries. */
async function copyTokenizer(checkpoint: Checkpoint, out: string): Promise<Manifest["tokenizerFiles"]> {
  const copied: Manifest["tokenizerFiles"] = [];
  for (const name of tokenizerFileNames(checkpoint.path)) {
    const path = join(checkpoint.path, name), text = checkpoint.tokenizerFiles.get(name);
    // What lies beside a GGUF file may be another model's.
    if (text === undefined && (checkpoint.gguf !== undefined || !fs.existsSync(path))) continue;
    const content = text === undefined ? fs.readFileSync(path) : new TextEncoder().encode(text);
    fs.mkdirSync(dirname(join(out, name)), { recursive: true });
    await writeWhole(join(out, name), content);
    copied.push({ name, bytes: content.length, sha256: createHash("sha256").update(content).digest("hex") });
  }
  return copied;
}

/** Plans and writes the output. Returns how many files an earlier run had finished, and which files of a supplied source were removed. */
async function writeShards(
  checkpoint: Checkpoint,
  out: string,
  options: QuantizeOptions,
): Promise<{ resumedFiles: number; deletedFiles: string[] }> {
  const { compression, threads } = options;
  const architecture = architectureFor(checkpoint.config);
  using context = await Context.load({ kind: "cpu", threads });
  const bound = (format: string, rows: number, cols: number) =>
    quantizedBytesBound(context, context.formatId(format), rows, cols);
  const plan = planQuantization(checkpoint, architecture, compression, bound, await encodedTensors(checkpoint));
  checkMemory(checkpoint.path, plan, options.ramBytes);
  const journal = new Journal(out, checkpoint, compression);
  await journal.open();
  try {
    const removal = checkpoint.supply && options.deleteOriginal
      ? new SourceRemoval(checkpoint, out, plan.groups, journal, options.signal)
      : undefined;
    const resumedFiles = await writeGroups(checkpoint, out, options, context, plan, journal, removal);
    return { resumedFiles, deletedFiles: removal?.removed ?? [] };
  } finally {
    journal.removeIfAlone();
  }
}

/** Writes the files that the journal does not have, then the tokenizer's, then the manifest. */
async function writeGroups(
  checkpoint: Checkpoint,
  out: string,
  { compression, signal, onProgress, freeBytes }: QuantizeOptions,
  context: Context,
  plan: QuantizePlan,
  journal: Journal,
  removal: SourceRemoval | undefined,
): Promise<number> {
  for (const name of fs.readdirSync(out)) {
    if (name.endsWith(PARTIAL_SUFFIX)) fs.rmSync(join(out, name));
  }
  await removal?.removeLeftOver();
  checkDiskSpace(checkpoint, out, plan, journal, removal !== undefined, freeBytes);

  const totalBytes = plan.groups.reduce((sum, group) => sum + group.sourceBytes, 0);
  const resumed = plan.groups.filter((group) => journal.finished(group.file));
  let doneBytes = resumed.reduce((sum, group) => sum + group.sourceBytes, 0);
  onProgress?.({ phase: "quantize", doneBytes, totalBytes, tensor: "" });
  const onChunk = (tensor: string, bytes: number) => {
    doneBytes += bytes;
    onProgress?.({ phase: "quantize", doneBytes, totalBytes, tensor });
  };
  using quantizer = new GroupQuantizer(context, checkpoint, out, plan.groups, onChunk, signal);
  const cancel = () => context.cancel(true);
  signal?.addEventListener("abort", cancel);
  try {
    for (const group of checkpoint.supply ? inSourceOrder(plan.groups, (group) => sourceFiles([group])) : plan.groups) {
      if (signal?.aborted) throw cancelledError();
      if (journal.finished(group.file)) continue;
      await journal.add(await quantizer.quantize(group, async (file, current) => await removal?.removeIfDone(file, current)));
      for (const file of sourceFiles([group])) await removal?.removeIfDone(file);
    }
  } finally {
    signal?.removeEventListener("abort", cancel);
  }
  const finished = plan.groups.map((group) => journal.finished(group.file)!);
  await writeManifest(out, {
    format: "airkern-shards",
    formatVersion: 1,
    generator: GENERATOR,
    config: checkpoint.config,
    generationConfig: checkpoint.generationConfig,
    tokenizerFiles: await copyTokenizer(checkpoint, out),
    source: { name: checkpoint.name, revision: checkpoint.revision },
    compression,
    files: finished.map(({ file }) => file),
    tensors: finished.flatMap(({ tensors }, file) => tensors.map(({ name, ...rest }) => ({ name, file, ...rest }))),
    ignoredTensors: plan.ignoredTensors,
  });
  return resumed.length;
}

/** Removes the source's files after the whole output was reread. Every tensor is in the output or ignored with a reason by then. */
async function deleteSource(checkpoint: Checkpoint, out: string, options: QuantizeOptions): Promise<string[]> {
  const { damages } = await verifyShards(out, { onProgress: options.onProgress, signal: options.signal });
  if (damages.length > 0) {
    throw new FormatError(`Cannot delete ${checkpoint.path}: the output is damaged, the source is kept: ${damages[0].message}`);
  }
  const writtenMs = fs.statSync(join(out, MANIFEST_FILE)).mtimeMs;
  // Of a supplied source some may be gone, or never have come.
  const files = checkpoint.files.filter(({ path }) => checkpoint.supply === undefined || fs.existsSync(path));
  for (const { path, fileBytes, modifiedMs } of files) {
    const { size, mtimeMs } = fs.statSync(path);
    if (size !== fileBytes || (checkpoint.supply === undefined && mtimeMs !== modifiedMs) || mtimeMs > writtenMs) {
      throw new FormatError(`Cannot delete ${path}: it was changed after it was quantized, so it is kept`);
    }
  }
  return files.map(({ path }) => {
    removeCheckpointFile(path);
    return path;
  });
}

/**
 * Quantizes a checkpoint into a shard directory. An interrupted run is taken up where it was; an output that is whole already is left as it is.
 *
 * @throws {FormatError} for anything wrong in the checkpoint: damage, missing or unknown tensors, NaN weights.
 * @throws {UnsupportedError} for an architecture, setting or element type that is not known.
 * @throws {UsageError} where `out` holds something else.
 * @throws {BudgetError} where the disk cannot hold the output, or `ramBytes` the work.
 * @throws {CancelledError} after the signal.
 */
export async function quantizeCheckpoint(options: QuantizeOptions): Promise<QuantizeReport> {
  const start = performance.now();
  const out = resolve(options.out);
  using checkpoint = await openCheckpoint(options.source, options.supply);
  // Before the directory is made: an unknown model shall leave nothing behind.
  architectureFor(checkpoint.config).parseConfig(checkpoint.config);
  if (fs.existsSync(out) && fs.realpathSync(out) === fs.realpathSync(checkpoint.path)) {
    throw new UsageError(`Cannot quantize into ${out}: it is the checkpoint itself; choose another directory`);
  }
  let created: string | undefined;
  try {
    created = fs.mkdirSync(out, { recursive: true });
  } catch (error) {
    throw writeError(out, error);
  }
  try {
    using _lock = await lockDirectory(out, options);
    let shards = await completeOutput(out, checkpoint, options.compression);
    const alreadyComplete = shards !== undefined;
    const { resumedFiles, deletedFiles } = alreadyComplete
      ? { resumedFiles: 0, deletedFiles: [] as string[] }
      : await writeShards(checkpoint, out, options);
    new Journal(out, checkpoint, options.compression).remove();
    shards ??= await openShards(out);
    // Of a source that was supplied to this run, nothing is left by now.
    const anyLeft = checkpoint.files.some(({ path }) => fs.existsSync(path));
    if (options.deleteOriginal && anyLeft) deletedFiles.push(...await deleteSource(checkpoint, out, options));
    return {
      out,
      compression: options.compression,
      ...manifestFigures(shards.manifest),
      fileBytes: shards.fileBytes,
      seconds: (performance.now() - start) / 1000,
      ignoredTensors: shards.manifest.ignoredTensors,
      resumedFiles,
      alreadyComplete,
      deletedFiles,
    };
  } catch (error) {
    if (created !== undefined) removeEmptyDirectories(out, dirname(created));
    if (error instanceof AirkernError || !(error instanceof Error) || (error as NodeJS.ErrnoException).code === undefined) {
      throw error;
    }
    throw new AirkernError(`Cannot quantize ${options.source} into ${out}: ${error.message}`);
  }
}

/** Removes the directories this run made where it put nothing into them. */
function removeEmptyDirectories(path: string, until: string): void {
  for (; path !== until && fs.existsSync(path) && fs.readdirSync(path).length === 0; path = dirname(path)) fs.rmdirSync(path);
}
