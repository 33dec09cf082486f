/** Shapes that say a level without colour: each severity and each level has one of its own. */

import { element, svg } from './dom.js';

const PATHS = {
  ok: 'M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1Zm-.9 10.1L4 8l1.1-1.1 2 2L11 5l1.1 1.1Z',
  watch: 'M8 1 .8 14.5h14.4ZM7.2 6h1.6v4.3H7.2Zm0 5.5h1.6v1.6H7.2Z',
  act: 'M5 1h6l4 4v6l-4 4H5l-4-4V5Zm2.2 3v5h1.6V4Zm0 6.4V12h1.6v-1.6Z',
  unknown: 'M8 1a7 7 0 1 0 0 14A7 7 0 0 0 8 1Zm0 1.6a5.4 5.4 0 1 1 0 10.8A5.4 5.4 0 0 1 8 2.6ZM4.5 7.2h7v1.6h-7Z',
  none: 'M8 3.5a4.5 4.5 0 1 0 0 9 4.5 4.5 0 0 0 0-9Zm0 1.4a3.1 3.1 0 1 1 0 6.2 3.1 3.1 0 0 1 0-6.2Z',
  low: 'M8 4.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7Z',
  medium: 'M8 2.2 15 14H1Z',
  high: 'M8 1.2 14.8 8 8 14.8 1.2 8Z',
  critical: 'M5 1h6l4 4v6l-4 4H5l-4-4V5Z',
};

/** The shape of a level or severity, hidden from screen readers: the word stands beside it. */
export function mark(level) {
  const known = level in PATHS ? level : 'unknown';
  const shape = svg('path', { d: PATHS[known], 'fill-rule': 'evenodd' });
  return svg('svg', { class: `mark ${known}`, viewBox: '0 0 16 16', 'aria-hidden': 'true' }, shape);
}

/** A severity: its shape and its word, or what there is to say instead. */
export const severity = (level, word = level) =>
  element('span', { class: `severity ${level}` }, mark(level), element('span', { class: 'what' }, word));
