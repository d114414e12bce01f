/**
 * Weight files that are not all on disk from the start. Types only.
 * @module
 */
import type { SafetensorsHeader } from "./safetensors.ts";

/** Brings a checkpoint's weight files to disk when they are first read. */
export interface WeightSupply {
  /** The weight files, by name. */
  readonly names: readonly string[];
  /** 16 hex digits over config.json, where the weights do not say that themselves, and the content of all weight files, without having them. */
  readonly identity: string;
  /** Reads a file's header, without the file where it is not there. */
  header(name: string): Promise<SafetensorsHeader>;
  /** Returns the bytes of a file that is not on disk. */
  fileBytes(name: string): number;
  /** Fills `into` from a position of a file that is not on disk; nothing vouches for what comes but the connection. */
  peek(name: string, position: number, into: Uint8Array): Promise<void>;
  /** Says which files will be read, which is what progress counts. Returns the bytes of each that are not on disk yet. */
  expect(names: readonly string[]): Map<string, number>;
  /** Returns a file's path once all of it is on disk and known to be right. */
  acquire(name: string): Promise<string>;
  /** Where the files are put. */
  readonly directory: string;
}
