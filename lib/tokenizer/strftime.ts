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

/** Returns the week of the year whose weeks begin on a Sunday (0) or a Monday (1); days before the first of those are week 0. */
function weekOfYear(time: Date, firstDay: number): number {
  return Math.floor((dayOfYear(time) + 6 - (time.getDay() + 7 - firstDay) % 7) / 7);
}

/** Returns the year and week of ISO 8601: those of the week's Thursday. */
function isoWeek(time: Date): { year: number; week: number } {
  const thursday = new Date(time.getFullYear(), time.getMonth(), time.getDate() + 4 - (time.getDay() || 7));
  return { year: thursday.getFullYear(), week: Math.ceil(dayOfYear(thursday) / 7) };
}

function pad(value: number, digits = 2): string {
  return String(value).padStart(digits, "0");
}

/** What each directive stands for. The time has no zone, as that of `datetime.now()` has none. */
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
  C: (time) => pad(Math.floor(time.getFullYear() / 100)),
  G: (time) => pad(isoWeek(time).year, 4),
  g: (time) => pad(isoWeek(time).year % 100),
  V: (time) => pad(isoWeek(time).week),
  U: (time) => pad(weekOfYear(time, 0)),
  W: (time) => pad(weekOfYear(time, 1)),
  k: (time) => String(time.getHours()).padStart(2),
  l: (time) => String(time.getHours() % 12 || 12).padStart(2),
  P: (time) => time.getHours() < 12 ? "am" : "pm",
  f: (time) => pad(time.getMilliseconds() * 1000, 6),
  z: () => "",
  Z: () => "",
  c: (time) => strftime(time, "%a %b %e %H:%M:%S %Y"),
  x: (time) => strftime(time, "%m/%d/%y"),
  X: (time) => strftime(time, "%H:%M:%S"),
  r: (time) => strftime(time, "%I:%M:%S %p"),
  F: (time) => strftime(time, "%Y-%m-%d"),
  T: (time) => strftime(time, "%H:%M:%S"),
  R: (time) => strftime(time, "%H:%M"),
  D: (time) => strftime(time, "%m/%d/%y"),
  n: () => "\n",
  t: () => "\t",
  "%": () => "%",
};

/** What glibc's flags between the percent sign and the letter do. */
const FLAGS: Record<string, (value: string) => string> = {
  "-": (value) => value.replace(/^[0 ]+(?=.)/, ""),
  _: (value) => value.replace(/^0+(?=.)/, (zeros) => " ".repeat(zeros.length)),
  "^": (value) => value.toUpperCase(),
};

/**
 * Returns a local time in a format.
 * @throws {UnsupportedError} for a directive that is not known.
 */
export function strftime(time: Date, format: string): string {
  return format.replace(/%([-_^]?)(.?)/gs, (directive, flag: string, letter: string) => {
    if (!Object.hasOwn(DIRECTIVES, letter)) {
      throw new UnsupportedError(`Cannot format a date with ${directive}: known are %${Object.keys(DIRECTIVES).join(" %")}`);
    }
    const value = DIRECTIVES[letter](time);
    return flag ? FLAGS[flag](value) : value;
  });
}
