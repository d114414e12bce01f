/**
 * Runs a model one pass at a time: sequences bring tokens, and get logits where they ask.
 * @module
 */
import { openSync } from "node:fs";
