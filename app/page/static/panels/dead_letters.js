/** What could not be used: how many, why, and a few of them with the beginning of what came. */

import { element, fill, note } from '../dom.js';
import { figure, time, words } from '../format.js';

const panel = document.getElementById('dead');

const place = ({ topic, partition, offset }) => `${topic} ${partition}/${offset}`;

const makeLetter = (letter) =>
  element(
    'li',
    {},
    element(
      'details',
      { class: 'letter' },
      element(
        'summary',
        {},
        element('b', {}, words(letter.reason)),
        element('span', { class: 'what' }, place(letter)),
        time(letter.dead_time_ms),
      ),
      element('p', {}, letter.message),
      element('pre', { tabindex: '0', 'aria-label': 'The beginning of the record' }, letter.original),
    ),
  );

export function drawDeadLetters({ dead_letters: { count, at_least, reasons, examples } }) {
  const told = Object.entries(reasons).map(([reason, times]) => `${words(reason)} ${figure(times)}`);
  note(panel, [`${at_least ? 'at least ' : ''}${figure(count)}`, ...told].join(' · '));
  const list = panel.querySelector('ul');
  list.dataset.empty = 'Every record could be used.';
  fill(list, examples, place, makeLetter);
}
