/** The columns of the newest judged window, the worst first: how each was distributed, and how it is now. */

import { histogram } from '../charts/histogram.js';
import { sparkline } from '../charts/sparkline.js';
import { showTable } from '../detail.js';
import { element, fill, note } from '../dom.js';
import { figure, fixed, moment, percent } from '../format.js';
import { severity } from '../marks.js';

const panel = document.getElementById('drift');

const newest = ({ history }) => history.at(-1) ?? null;

/** The bin whose share has changed most, in words; a column that is not split into bins has none. */
function told({ name, bins, reference, current, severity: level }) {
  if (!bins.length) return `${name}, drift ${level}`;
  const change = (at) => Math.abs(current[at] - reference[at]);
  const most = bins.reduce((best, _, at) => (change(at) > change(best) ? at : best), 0);
  return `${name}, drift ${level}; ${bins[most]}: ${percent(reference[most])} at first, ${percent(current[most])} now`;
}

/** The histogram, and below it how PSI went. */
function picture(column) {
  const windows = column.history.length;
  const trend =
    windows < 2
      ? ''
      : element(
          'figure',
          {},
          sparkline(
            column.history,
            `PSI went from ${fixed(
              column.history.find((value) => value !== null),
              3,
            )} to ${fixed(newest(column), 3)}`,
          ),
          element('figcaption', {}, `PSI over the last ${figure(windows)} windows`),
        );
  return element('div', { class: column.severity }, histogram(column.reference, column.current, told(column)), trend);
}

function showColumn(column) {
  const { name, severity: level, reason, bins, reference, current } = column;
  showTable({
    title: name,
    note: `Drift: ${level}. PSI ${fixed(newest(column), 3)}${reason ? ` (${reason})` : ''}`,
    picture: picture(column),
    headings: ['Bin', 'Reference', 'Now'],
    rows: bins.map((bin, at) => [bin, `${fixed(reference[at] * 100, 1)}%`, `${fixed(current[at] * 100, 1)}%`]),
  });
}

function makeColumn(column) {
  const { name, severity: level, reason, reference, current } = column;
  return element(
    'li',
    { class: `column ${level}` },
    element(
      'button',
      { type: 'button', 'aria-haspopup': 'dialog', click: () => showColumn(column) },
      element('span', { class: 'what', title: name }, name),
      histogram(reference, current, told(column)),
      element(
        'span',
        { class: 'foot' },
        severity(level, level === 'none' && reason ? reason : level),
        element('span', { class: 'psi' }, element('span', { class: 'unseen' }, 'PSI '), fixed(newest(column), 2)),
      ),
    ),
  );
}

function summary({ drifted_share, number, n, to_time_ms, recommendation, over }) {
  const share = `${figure(drifted_share * 100)}% drifted`;
  const what = over ? 'not judged since the promotion' : recommendation;
  return [share, `window ${figure(number)}: ${figure(n)} events until ${moment(to_time_ms)}`, what]
    .filter(Boolean)
    .join(' · ');
}

export function drawDrift({ drift }) {
  note(panel, drift ? summary(drift) : '');
  const columns = panel.querySelector('.columns');
  columns.dataset.empty = 'No window is judged yet: a champion with a baseline is needed, and enough events.';
  fill(columns, drift ? drift.columns : [], ({ name }) => name, makeColumn);
}
