/** Shares of bins, twice: the reference as outlines, what is now as filled bars. */

import { svg } from '../dom.js';

const BIN = 10;
const HEIGHT = 44;

/** An `svg` of both; `label` tells them in a sentence. */
export function histogram(reference, current, label) {
  const top = Math.max(...reference, ...current, 1e-9);
  const bar = (share, at, name, inset) =>
    svg('rect', {
      class: name,
      x: at * BIN + inset,
      width: BIN - 2 * inset,
      y: HEIGHT * (1 - share / top),
      height: (HEIGHT * share) / top,
    });
  return svg(
    'svg',
    {
      class: 'histogram',
      viewBox: `0 -1 ${reference.length * BIN} ${HEIGHT + 2}`,
      preserveAspectRatio: 'none',
      role: 'img',
      'aria-label': label,
    },
    ...current.map((share, at) => bar(share, at, 'now', 1)),
    ...reference.map((share, at) => bar(share, at, 'then', 1)),
  );
}
