/**
 * What an unfinished quantization has finished, so that a rerun after a kill goes on from there.
 * @module
 */
import fs from "node:fs";
import { join } from "node:path";
import type { Checkpoint } from "../checkpoint/checkpoint.ts";
import { FormatError, UsageError } from "../errors.ts";
import { type Compression, GENERATOR, type ShardFile, type TensorEntry } from "./manifest.ts";
import { sealJson, unsealJson } from "./manifest_file.ts";
import { shardFileFault } from "./reader.ts";
import { writeWhole } from "./writer.ts";

/** Name of the journal in the output directory. */
export const JOURNAL_FILE = "quantize-journal.json";

/** A finished file; its tensors get their file's index when the manifest is put together. */
export interface FinishedGroup {
  file: ShardFile;
  tensors: Omit<TensorEntry, "file">[];
}

/** What has to be equal for finished files to be of use. */
interface Identity {
  generator: string;
  compression: Compression;
  fingerprint: string;
  /** Times too: within one run's life a file that was written to again is another file. */
  files: { name: string; bytes: number; modifiedMs: number }[];
}

/** The journal of one output directory. */
export class Journal {
  readonly #directory: string;
  readonly #identity: Identity;
  readonly #finished = new Map<string, FinishedGroup>();

  constructor(directory: string, checkpoint: Checkpoint, compression: Compression) {
    this.#directory = directory;
    this.#identity = {
      generator: GENERATOR,
      compression,
      fingerprint: checkpoint.fingerprint,
      files: checkpoint.files.map(({ name, fileBytes, modifiedMs }) => ({ name, bytes: fileBytes, modifiedMs })),
    };
  }

  get #path(): string {
    return join(this.#directory, JOURNAL_FILE);
  }

  /** Returns what was finished of a file, or undefined. */
  finished(file: string): FinishedGroup | undefined {
    return this.#finished.get(file);
  }

  /**
   * Takes up what an earlier run left, or begins an empty journal. Files whose source was written to since are not taken up.
   * @throws {UsageError} where the directory holds an unfinished quantization of another model or format, or something else.
   * @throws {FormatError} where the journal is damaged.
   */
  async open(): Promise<void> {
    let text: string | undefined;
    try {
      text = fs.readFileSync(this.#path, "utf8");
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") {
        throw new FormatError(`Cannot read ${this.#path}: ${(error as Error).message}`);
      }
    }
    if (text === undefined) {
      const others = fs.readdirSync(this.#directory).filter((name) => !name.startsWith(`${JOURNAL_FILE}.`));
      if (others.length > 0) {
        throw new UsageError(
          `Cannot quantize into ${this.#directory}: it holds ${
            others[0]
          } and no unfinished quantization; choose an empty directory`,
        );
      }
      return await this.#save();
    }
    // Written by this program under a hash, so its fields are what they were.
    const found = unsealJson(text, this.#path) as unknown as { identity: Identity; groups: FinishedGroup[] };
    const { identity } = found;
    for (const key of ["compression", "fingerprint"] as const) {
      if (identity[key] === this.#identity[key]) continue;
      throw new UsageError(
        `Cannot resume in ${this.#directory}: it holds an unfinished quantization with ${key} ${identity[key]}, ` +
          `asked for ${this.#identity[key]}; remove the directory or choose another`,
      );
    }
    if (JSON.stringify(identity) === JSON.stringify(this.#identity)) {
      for (const group of found.groups) {
        if (await shardFileFault(join(this.#directory, group.file.name), group.file) === undefined) {
          this.#finished.set(group.file.name, group);
        }
      }
    }
    await this.#save();
  }

  /** Adds a finished file, durably. */
  async add(group: FinishedGroup): Promise<void> {
    this.#finished.set(group.file.name, group);
    await this.#save();
  }

  async #save(): Promise<void> {
    await writeWhole(this.#path, sealJson({ identity: this.#identity, groups: [...this.#finished.values()] }));
  }

  /** Removes the journal where it says nothing and nothing else is there: a run that failed at once leaves nothing behind. */
  removeIfAlone(): void {
    if (fs.readdirSync(this.#directory).every((name) => name === JOURNAL_FILE)) this.remove();
  }

  /** Removes the journal, once the manifest says all of it. */
  remove(): void {
    fs.rmSync(this.#path, { force: true });
  }
}
