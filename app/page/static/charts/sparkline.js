/** A line without axes, from zero, with gaps where nothing is known. */

import { svg } from '../dom.js';

const WIDTH = 100;
const HEIGHT = 24;

/** Runs of points without a gap, each a list of [x, y]. */
function runs(values, top) {
  const place = (value, at) => [(at / (values.length - 1)) * WIDTH, HEIGHT - 1 - (value / (top * 1.1)) * (HEIGHT - 2)];
  const found = [[]];
  values.forEach((value, at) => (value === null ? found.push([]) : found.at(-1).push(place(value, at))));
  return found.filter((run) => run.length > 1);
}

const path = (points) => `M${points.map(([x, y]) => `${x.toFixed(2)} ${y.toFixed(2)}`).join('L')}`;

const floored = (points) => [[points[0][0], HEIGHT], ...points, [points.at(-1)[0], HEIGHT]];

/** An `svg` with a line for `values`, null for a gap; `label` tells it in a sentence. */
export function sparkline(values, label) {
  const top = Math.max(...values, 0);
  const lines = top > 0 ? runs(values, top) : [];
  return svg(
    'svg',
    {
      class: 'spark',
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      preserveAspectRatio: 'none',
      role: 'img',
      'aria-label': label,
    },
    svg('path', { class: 'area', d: lines.map((run) => `${path(floored(run))}Z`).join('') }),
    svg('path', { class: 'line', d: lines.map(path).join('') }),
  );
}
