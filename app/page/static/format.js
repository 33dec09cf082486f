/** Figures and times as people read them. What is not known is a dash. */

import { element, write } from './dom.js';

const UNKNOWN = '–';
const UNITS = [
  [86_400_000, 'd'],
  [3_600_000, 'h'],
  [60_000, 'min'],
  [1000, 's'],
  [1, 'ms'],
];

/** A number with at most `digits` after the point. */
export function figure(value, digits = 0) {
  if (value === null || value === undefined) return UNKNOWN;
  return value.toLocaleString('en', { maximumFractionDigits: digits });
}

/** A number with exactly `digits` after the point. */
export function fixed(value, digits) {
  return value === null || value === undefined ? UNKNOWN : value.toFixed(digits).replace('-', '−');
}

/** Events per second: whole from ten on. */
export const rate = (value) => figure(value, value !== null && value < 10 ? 1 : 0);

export const percent = (value) => (value === null || value === undefined ? UNKNOWN : `${figure(value * 100, 1)}%`);

/** A span of milliseconds in its largest fitting unit, as [number, unit]. */
export function span(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return [UNKNOWN, ''];
  const [size, unit] = UNITS.find(([least]) => milliseconds >= least) ?? UNITS.at(-1);
  const value = milliseconds / size;
  return [figure(value, value < 10 ? 1 : 0), unit];
}

const clock = new Intl.DateTimeFormat('en-GB', { timeStyle: 'medium' });
const day = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' });
const year = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', year: 'numeric' });
const short = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit' });

/** The time of day in the reader's zone, to the second. */
export const timeOfDay = (milliseconds) => clock.format(milliseconds);

/** The moment in the reader's zone: the time of today, else the day with it, else the day with its year. */
export function moment(milliseconds, now = Date.now()) {
  const then = new Date(milliseconds);
  const today = new Date(now);
  if (then.toDateString() === today.toDateString()) return clock.format(then);
  if (then.getFullYear() === today.getFullYear()) return `${day.format(then)}, ${short.format(then)}`;
  return `${year.format(then)}, ${short.format(then)}`;
}

/** A `time` element: the reader's zone in the text, UTC in the title. */
export function time(milliseconds) {
  const utc = new Date(milliseconds).toISOString();
  return element('time', { datetime: utc, title: `${utc.slice(0, 19).replace('T', ' ')} UTC` }, moment(milliseconds));
}

let renewed = new Date().toDateString();

/** Once the day is another one, says the times that stand on the page anew: of today they name no day. */
export function renewTimes() {
  const today = new Date().toDateString();
  if (today === renewed) return;
  renewed = today;
  document.querySelectorAll('time').forEach((node) => write(node, moment(Date.parse(node.dateTime))));
}

/** Labels for the ticks of a time axis, of seconds: days where the ticks are days, else times of day. */
export function ticks(seconds) {
  const apart = seconds.length > 1 ? seconds[1] - seconds[0] : 0;
  const format = apart >= 86_400 ? day : apart >= 60 ? short : clock;
  return seconds.map((second) => format.format(second * 1000));
}

/** A word of the code as words: `rolled_back` becomes "rolled back". */
export const words = (name) => name.replaceAll('_', ' ');

/** A text that begins with a capital. */
export const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);
