/** What is under way to change the models: the experiment or rollout, and the training run. */

import { element, fill } from '../dom.js';
import { figure, fixed, moment, percent, words } from '../format.js';

function signed(value) {
  return value > 0 ? `+${fixed(value, 4)}` : fixed(value, 4);
}

function arm({ variant, share, samples, mean, difference, low, high }, metric) {
  const interval = low === null ? '' : ` (${signed(low)} to ${signed(high)})`;
  const weight = `${percent(share)} of the events, ${figure(samples)} samples`;
  return `${variant} ${fixed(mean, 4)} ${words(metric)}, ${signed(difference)}${interval}, ${weight}`;
}

function experiment({ id, kind, metric, verdict, why, arms }) {
  const others = arms.filter(({ difference }) => difference !== null);
  const told = [...others.map((other) => arm(other, metric)), `${words(verdict)}${why ? `: ${why}` : ''}`].join(' · ');
  return { kind: words(kind), name: id, told, share: null };
}

function training({ run_id: name, phase, share, outcome, message, time_ms }) {
  const done = outcome ? `${outcome}, ${moment(time_ms)}` : phase;
  return { kind: 'training', name, told: [done, message].filter(Boolean).join(' · '), share: outcome ? null : share };
}

export function drawTrials(place, stream) {
  const trials = [stream.experiment && experiment(stream.experiment), stream.training && training(stream.training)];
  fill(
    place,
    trials.filter(Boolean),
    ({ kind }) => kind,
    ({ kind, name, told, share }) =>
      element(
        'p',
        { class: 'trial' },
        element('b', {}, kind),
        element('span', { class: 'what', title: name }, name),
        share === null
          ? null
          : element('progress', { max: 1, value: share, 'aria-label': `${kind}: ${percent(share)} done` }),
        element('span', { class: 'told', title: told }, told),
      ),
  );
}
