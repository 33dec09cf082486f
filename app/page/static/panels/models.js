/** Who serves, who else scores, and how good each was, window by window. */

import { drawIntervals, followSize, timesOf } from '../charts/intervals.js';
import { showTable } from '../detail.js';
import { element, fill, note } from '../dom.js';
import { figure, fixed, moment, percent, time } from '../format.js';
import { drawTrials } from './trials.js';

const FIGURES = { roc_auc: 'ROC AUC', accuracy: 'Accuracy' };
const TONES = 4;
const NO_TONE = 'none';

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

const waiting = ([, , , , , mature]) => (mature ? '' : 'still coming');

const shownRange = (window) => (waiting(window) ? `labels ${waiting(window)}` : range(window));

const interval = (window) => (range(window) ? `${fixed(window[1], 3)} (${range(window)})` : fixed(window[1], 3));

/** The window under the pointer, else the newest one that is to be told; undefined where there is none. */
function shownWindow({ variant }) {
  if (hovered === null) return models.newest[variant];
  const until = timesOf(models.windows)[hovered];
  return windowsOf({ variant }).find(([at]) => at === until);
}

function drawLegend() {
  const entries = variants().map((entry, tone) => ({
    ...entry,
    tone: tone < TONES ? tone : NO_TONE,
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
        element('span', { class: 'range' }, shown ? shownRange(shown) : ''),
        element('span', { class: 'model', title: model }, [model, role].filter(Boolean).join(' · ')),
      ),
  );
}

function drawPlot() {
  const colours = [...legend.children].map((entry) => getComputedStyle(entry).color);
  const known = variants()
    .slice(0, TONES)
    .map((entry, at) => ({ ...entry, colour: colours[at] }))
    .filter((entry) => windowsOf(entry).length);
  plot.classList.toggle('empty', !known.length);
  if (!known.length) return;
  const windows = Object.fromEntries(known.map((entry) => [entry.variant, windowsOf(entry)]));
  drawIntervals(plot, {
    windows,
    tones: known.map(({ colour }) => colour),
    mark: models.champion && !models.champion.since_before ? models.champion.since_time_ms : null,
    hovered: (index) => {
      hovered = index;
      drawLegend();
    },
  });
  const told = known
    .filter(({ variant }) => models.newest[variant])
    .map(({ variant }) => `${variant} ${interval(models.newest[variant])}`);
  const newest = told.length ? `in the newest mature window ${told.join(', ')}` : 'no window is mature yet';
  plot.setAttribute('aria-label', `${FIGURES[models.figure]} over time; ${newest}`);
}

function showWindows() {
  const windows = Object.entries(models.windows).flatMap(([variant, all]) =>
    all.map((window) => ({ variant, window })),
  );
  windows.sort((one, other) => other.window[0] - one.window[0]);
  showTable({
    title: `${FIGURES[models.figure]} by window`,
    note: 'The 95% interval in brackets, where there is one.',
    headings: ['Until', 'Variant', FIGURES[models.figure], 'Events', 'Labels'],
    rows: windows.map(({ variant, window }) => [
      time(window[0]),
      variant,
      interval(window),
      figure(window[4]),
      waiting(window) || 'complete',
    ]),
  });
}

function serving({ algorithm, version, since_time_ms: since, since_before: before }) {
  const what = [algorithm || 'a model', version].filter(Boolean).join(' ');
  return `${what} serves since ${before ? 'before ' : ''}${moment(since)}`;
}

export function drawModels(stream) {
  models = stream.models;
  const { champion } = models;
  note(panel, `${FIGURES[models.figure]} · ${champion ? serving(champion) : 'No champion serves'}`);
  plot.dataset.empty = 'No window is judged yet: labels come later than events.';
  drawLegend();
  drawPlot();
  drawTrials(panel.querySelector('.under'), stream);
}
