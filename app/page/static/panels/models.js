/** Who serves, who else scores, and how good each was, window by window. */

import { drawIntervals, followSize, timesOf } from '../charts/intervals.js';
import { showTable } from '../detail.js';
import { element, fill, note } from '../dom.js';
import { figure, fixed, moment, percent, time } from '../format.js';
import { drawTrials } from './trials.js';

const FIGURES = { roc_auc: 'ROC AUC', accuracy: 'Accuracy' };
const TONES = 4;

const panel = document.getElementById('models');
const plot = panel.querySelector('.plot');
const legend = panel.querySelector('.legend');
let models = null;
let hovered = null;

followSize(plot);
panel.querySelector('button').addEventListener('click', () => models && showWindows());

const windowsOf = ({ variant }) => models.windows[variant] ?? [];

/** The champion first, the others as they are declared, then whoever only has a past. */
function variants() {
  const { champion, others, windows } = models;
  const now = [
    ...(champion ? [{ variant: 'champion', model: champion.model_id, role: '' }] : []),
    ...others.map(({ variant, model_id: model, role, share }) => ({
      variant,
      model,
      role: share === null ? role : `${role}, ${percent(share)} of the events`,
    })),
  ];
  const past = Object.keys(windows).filter((name) => !now.some(({ variant }) => variant === name));
  return [...now, ...past.map((variant) => ({ variant, model: '', role: 'no longer there' }))];
}

const range = ([, , low, high]) => (low === null ? '' : `${fixed(low, 3)} to ${fixed(high, 3)}`);

const interval = (window) => (range(window) ? `${fixed(window[1], 3)} (${range(window)})` : fixed(window[1], 3));

/** The window under the pointer, else the newest one that has a figure; undefined where there is none. */
function shownWindow(variant) {
  const windows = windowsOf(variant);
  if (hovered === null) return windows.findLast(([, value]) => value !== null);
  const until = timesOf(models.windows)[hovered];
  return windows.find(([at]) => at === until);
}

function drawLegend() {
  const entries = variants().map((entry, tone) => ({
    ...entry,
    tone: tone % TONES,
    shown: shownWindow(entry) ?? null,
  }));
  fill(
    legend,
    entries,
    ({ variant }) => variant,
    ({ variant, model, role, tone, shown }) =>
      element(
        'li',
        { class: `tone-${tone}` },
        element('i', { class: 'swatch' }),
        element('span', { class: 'variant' }, variant),
        element('b', { class: 'value' }, fixed(shown?.[1], 3)),
        element('span', { class: 'range' }, shown ? range(shown) : ''),
        element('span', { class: 'model', title: model }, [model, role].filter(Boolean).join(' · ')),
      ),
  );
}

function drawPlot() {
  const colours = [...legend.children].map((entry) => getComputedStyle(entry).color);
  const known = variants()
    .map((entry, at) => ({ ...entry, colour: colours[at] }))
    .filter((entry) => windowsOf(entry).length);
  plot.classList.toggle('empty', !known.length);
  if (!known.length) return;
  const windows = Object.fromEntries(known.map((entry) => [entry.variant, windowsOf(entry)]));
  drawIntervals(
    plot,
    windows,
    known.map(({ colour }) => colour),
    (index) => {
      hovered = index;
      drawLegend();
    },
  );
  const told = known.map(({ variant }) => `${variant} ${interval(windows[variant].at(-1))}`).join(', ');
  plot.setAttribute('aria-label', `${FIGURES[models.figure]} over time; in the newest window ${told}`);
}

function showWindows() {
  const windows = Object.entries(models.windows).flatMap(([variant, all]) =>
    all.map((window) => ({ variant, window })),
  );
  windows.sort((one, other) => other.window[0] - one.window[0]);
  showTable({
    title: `${FIGURES[models.figure]} by window`,
    note: 'The 95% interval in brackets, where there is one.',
    headings: ['Until', 'Variant', FIGURES[models.figure], 'Events'],
    rows: windows.map(({ variant, window }) => [time(window[0]), variant, interval(window), figure(window[4])]),
  });
}

export function drawModels(stream) {
  models = stream.models;
  const { champion } = models;
  const serves = champion
    ? `${champion.algorithm} serves since ${moment(champion.since_time_ms)}`
    : 'No champion serves';
  note(panel, `${FIGURES[models.figure]} · ${serves}`);
  plot.dataset.empty = 'No window is judged yet: labels come later than events.';
  drawLegend();
  drawPlot();
  drawTrials(panel.querySelector('.under'), stream);
}
