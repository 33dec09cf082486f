/** The strip of figures: what goes in and out of the stream, and how labels come. */

import { sparkline } from '../charts/sparkline.js';
import { element, fill, note } from '../dom.js';
import { figure, rate, span } from '../format.js';

const TASKS = {
  binary: 'binary classification',
  multiclass: 'multiclass classification',
  anomaly: 'anomaly detection',
};

/** `more` says the second line; `line` is the values of a small chart and what it tells. */
function makeFigure({ name, value, unit, more, line }) {
  return element(
    'div',
    { class: 'figure' },
    element('dt', {}, name),
    element('dd', {}, element('span', { class: 'value' }, value), element('span', { class: 'unit' }, unit)),
    element('dd', { class: 'more' }, more ?? ''),
    line ? element('dd', { class: 'line' }, sparkline(line.values, line.label)) : '',
  );
}

const draw = (place, figures) => fill(document.querySelector(`#${place} dl`), figures, ({ name }) => name, makeFigure);

function duration(name, milliseconds, rest) {
  const [value, unit] = span(milliseconds);
  return { name, value, unit, ...rest };
}

export function drawFlow({ flow, task }) {
  note(document.getElementById('flow'), TASKS[task] ?? task);
  const over = (field) => flow.history.map((point) => point[field]);
  const minutes = Math.max(1, Math.round(flow.history.length / 60));
  const line = (field, what) => ({ values: over(field), label: `${what} over the last ${minutes} min` });
  draw('flow', [
    { name: 'In', value: rate(flow.in_eps), unit: '/s', more: 'events', line: line(1, 'Events in') },
    { name: 'Answered', value: rate(flow.out_eps), unit: '/s', more: 'predictions', line: line(2, 'Predictions') },
    duration('Latency, p99', flow.latency_p99_ms, {
      more: `p50 ${span(flow.latency_p50_ms).join(' ')}`,
      line: line(3, 'Latency'),
    }),
    { name: 'Lag', value: figure(flow.lag), unit: '', more: 'events not answered' },
  ]);
}

export function drawLabels({ labels }) {
  draw('labels', [
    duration('Delay, p50', labels.delay_p50_ms, { more: `p95 ${span(labels.delay_p95_ms).join(' ')}` }),
    { name: 'Pending', value: figure(labels.pending), unit: '', more: 'without a label' },
  ]);
}
