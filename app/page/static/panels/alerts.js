/** What was raised and what to do about it; what is over is folded away. */

import { element, fill, note, write } from '../dom.js';
import { figure, sentence, time, words } from '../format.js';
import { severity } from '../marks.js';

const panel = document.getElementById('alerts');

function makeAlert({ severity: level, kind, subject, message, recommendation, told_time_ms: told }) {
  return element(
    'li',
    { class: `alert ${level}` },
    element(
      'p',
      { class: 'top' },
      severity(level),
      element('b', {}, words(kind)),
      element('span', { class: 'what', title: subject }, subject),
      time(told),
    ),
    element('p', { class: 'message' }, sentence(message)),
    recommendation ? element('p', { class: 'do' }, element('b', {}, 'What to do '), sentence(recommendation)) : '',
  );
}

export function drawAlerts({ alerts }) {
  const [now, over] = [true, false].map((current) => alerts.filter((alert) => alert.current === current));
  note(panel, now.length ? `${figure(now.length)} open` : 'none open');
  const lists = panel.querySelectorAll('ul');
  fill(lists[0], now, ({ id }) => id, makeAlert);
  fill(lists[1], over, ({ id }) => id, makeAlert);
  panel.querySelector('details').hidden = !over.length;
  write(panel.querySelector('summary'), `${figure(over.length)} earlier`);
  lists[0].dataset.empty = 'Nothing is wrong that anyone has told of.';
}
