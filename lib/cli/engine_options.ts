/**
 * Turns the command line's options into an engine's.
 * @module
 */
import type { EngineOptions } from "../engine/engine.ts";
import type { OpenOptions } from "./options.ts";
import { printError } from "./output.ts";

/** Tells the user what is done otherwise than asked for. */
export function printNotice(message: string): void {
  printError(`airkern: ${message}`);
}

/** Returns the options that every command hands on to the engine as they are. */
export function engineOptions(options: OpenOptions & { ram?: number }): EngineOptions {
  const { device, ram: ramBytes, vram: vramBytes, threads, precision, kvCacheType, kvLocation } = options;
  return {
    ...{ device, ramBytes, vramBytes, threads, precision, kvCacheType, kvCacheLocation: kvLocation, onNotice: printNotice },
  };
}
