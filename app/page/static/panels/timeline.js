/** What happened to the models, the newest first. */

import { element, fill } from '../dom.js';
import { time, words } from '../format.js';

const TONES = { promoted: 'good', rolled_back: 'bad', refused: 'bad' };

const list = document.querySelector('#timeline ol');

const makeMoment = ({ time_ms: when, what, title, detail }) =>
  element(
    'li',
    { class: `moment ${TONES[what] ?? ''}` },
    time(when),
    element('span', { class: 'kind' }, words(what)),
    element('span', { class: 'told' }, element('b', {}, title), detail ? ` ${detail}` : ''),
  );

export function drawTimeline({ timeline }) {
  list.dataset.empty = 'Nothing has happened to the models yet.';
  fill(list, timeline, (moment) => JSON.stringify(moment), makeMoment);
}
