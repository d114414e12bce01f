/**
 * Removes source files that were supplied, each as soon as no layer needs it any more: a model then takes the disk of its shards and of one
 * source file, however many it has.
 * @module
 */
import fs from "node:fs";
import { join } from "node:path";
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import { removeCheckpointFile } from "../checkpoint/remove_file.ts";
import { FormatError } from "../errors.ts";
import type { FinishedGroup, Journal } from "./journal.ts";
import { paddedBytes } from "./manifest.ts";
import type { GroupJob } from "./quantize_plan.ts";
import { type PlacedExtent, verifyExtents } from "./verify.ts";

/** A shard file that is not finished yet, and the tensors that are in it so far. */
export interface GroupUnderWay {
  group: GroupJob;
  /** Where the file is for now. */
  path: string;
  tensors: FinishedGroup["tensors"];
}

/** Knows which source files are still needed. */
export class SourceRemoval {
  /** Paths of the files that were removed. */
  readonly removed: string[] = [];
  readonly #checkpoint: Checkpoint;
  readonly #out: string;
  readonly #groups: readonly GroupJob[];
  readonly #journal: Journal;
  readonly #signal: AbortSignal | undefined;

  constructor(checkpoint: Checkpoint, out: string, groups: readonly GroupJob[], journal: Journal, signal?: AbortSignal) {
    this.#checkpoint = checkpoint;
    this.#out = out;
    this.#groups = groups;
    this.#journal = journal;
    this.#signal = signal;
  }

  /** Removes what an earlier run has quantized but not removed. */
  async removeLeftOver(): Promise<void> {
    for (const file of this.#checkpoint.files.keys()) await this.removeIfDone(file);
  }

  /**
   * Removes a source file if every tensor of it that the model uses is in the output, which is reread first.
   *
   * @param current The file being written, in which all of its tensors from this source file are.
   * @throws {FormatError} where the output is damaged; the source is then kept.
   */
  async removeIfDone(file: number, current?: GroupUnderWay): Promise<void> {
    const { path, name } = this.#checkpoint.files[file];
    if (!fs.existsSync(path)) return;
    const users = this.#groups.filter((group) => group.tensors.some(({ source }) => source.files.includes(file)));
    if (!users.every((group) => group === current?.group || this.#journal.finished(group.file))) return;
    for (const group of users) {
      const names = new Set(group.tensors.filter(({ source }) => source.files.includes(file)).map((tensor) => tensor.name));
      const finished = this.#journal.finished(group.file);
      const written = finished?.tensors ?? current!.tensors;
      await this.#verify(
        finished ? join(this.#out, group.file) : current!.path,
        written.filter((tensor) => names.has(tensor.name)),
        name,
      );
    }
    this.#checkpoint.close(file);
    removeCheckpointFile(path);
    this.removed.push(path);
  }

  async #verify(path: string, tensors: FinishedGroup["tensors"], source: string): Promise<void> {
    const placed = tensors.flatMap(({ name, extents }) =>
      extents.map((extent, index): PlacedExtent => ({ tensor: name, index, extent }))
    );
    const largest = placed.reduce((bytes, { extent }) => Math.max(bytes, paddedBytes(extent.bytes)), 0);
    const buffers = [new Uint8Array(largest), new Uint8Array(largest)];
    await verifyExtents(path, placed, buffers, ({ tensor, index }, fault) => {
      if (fault === undefined) return;
      throw new FormatError(
        `Cannot delete ${source}: ${tensor}, extent ${index}, of ${path} is damaged: ${fault}; the source is kept`,
      );
    }, this.#signal);
  }
}
