/**
 * Formats a time as Python's strftime does in the C locale, which is what transformers gives to chat templates.
 * @module
 */
import { UnsupportedError } from "../errors.ts";

const MONTHS = [
  ...["January", "February", "March", "April", "May", "June", "July"],
  ...["August", "September", "October", "November", "December"],
];
const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

function dayOfYear(time: Date): number {
  const start = Date.UTC(time.getFullYear(), 0, 1);
  return Math.round((Date.UTC(time.getFullYear(), time.getMonth(), time.getDate()) - start) / 86_400_000) + 1;
}

function pad(value: number, digits = 2): string {
  return String(value).padStart(digits, "0");
}

/** What each directive stands for; `-` after the percent sign leaves zeros in front out, as glibc has it. */
const DIRECTIVES: Record<string, (time: Date) => string> = {
  Y: (time) => String(time.getFullYear()),
  y: (time) => pad(time.getFullYear() % 100),
  m: (time) => pad(time.getMonth() + 1),
  d: (time) => pad(time.getDate()),
  e: (time) => String(time.getDate()).padStart(2),
  B: (time) => MONTHS[time.getMonth()],
  b: (time) => MONTHS[time.getMonth()].slice(0, 3),
  h: (time) => MONTHS[time.getMonth()].slice(0, 3),
  A: (time) => DAYS[time.getDay()],
  a: (time) => DAYS[time.getDay()].slice(0, 3),
  H: (time) => pad(time.getHours()),
  I: (time) => pad(time.getHours() % 12 || 12),
  M: (time) => pad(time.getMinutes()),
  S: (time) => pad(time.getSeconds()),
  p: (time) => time.getHours() < 12 ? "AM" : "PM",
  j: (time) => pad(dayOfYear(time), 3),
  w: (time) => String(time.getDay()),
  u: (time) => String(time.getDay() || 7),
  F: (time) => strftime(time, "%Y-%m-%d"),
  T: (time) => strftime(time, "%H:%M:%S"),
  R: (time) => strftime(time, "%H:%M"),
  D: (time) => strftime(time, "%m/%d/%y"),
  n: () => "\n",
  t: () => "\t",
  "%": () => "%",
};

/**
 * Returns a local time in a format.
 * @throws {UnsupportedError} for a directive that is not known, such as those of weeks and time zones.
 */
export function strftime(time: Date, format: string): string {
  return format.replace(/%(-?)(.?)/gs, (directive, plain: string, letter: string) => {
    const value = Object.hasOwn(DIRECTIVES, letter) ? DIRECTIVES[letter](time) : undefined;
    if (value === undefined) {
      throw new UnsupportedError(`Cannot format a date with ${directive}: known are %${Object.keys(DIRECTIVES).join(" %")}`);
    }
    return plain ? value.replace(/^[0 ]+(?=.)/, "") : value;
  });
}
