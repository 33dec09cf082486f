/** Which stream is shown: the one that the address names (`#stream=NAME`), else the one that the server chose. */

import { element, fill, write } from '../dom.js';
import { figure } from '../format.js';
import { mark } from '../marks.js';

const MOST_LINKS = 8;
const LEVELS = ['act', 'watch', 'ok'];
const SHAPES = { act: '⬣', watch: '▲', ok: '●' };

const heading = document.getElementById('stream');
const place = document.getElementById('streams');
const [links, choice, counts] = ['.links', 'select', '.counts'].map((part) => place.querySelector(part));

let drawn = '';

const address = (name) => `#stream=${encodeURIComponent(name)}`;

choice.addEventListener('change', () => {
  location.hash = address(choice.value);
});

/** The stream that the address names, or null where it names none. */
export function named() {
  const found = /^#stream=(.+)$/.exec(location.hash);
  try {
    return found && decodeURIComponent(found[1]);
  } catch {
    return null;
  }
}

const makeLink = ({ name, level, current }) =>
  element(
    'a',
    { href: address(name), 'aria-current': current ? 'page' : null },
    mark(level),
    name,
    element('span', { class: 'unseen' }, `: ${level}`),
  );

const makeOption = ({ name, level }) => element('option', { value: name }, `${SHAPES[level]} ${name}: ${level}`);

/** One stream is a heading, a few are links that tell how each is, many are a list to choose from; the worst first. */
export function drawStreams(board) {
  const shown = board?.stream?.name ?? null;
  if (shown !== null) write(heading, shown);
  const streams = (board?.streams ?? []).map(({ name, state }) => ({ name, level: state.level }));
  streams.sort((one, other) => LEVELS.indexOf(one.level) - LEVELS.indexOf(other.level));
  const many = streams.length > MOST_LINKS;
  place.hidden = streams.length < 2;
  heading.classList.toggle('unseen', !place.hidden);
  links.hidden = many;
  choice.hidden = counts.hidden = !many;
  drawLinks(many || place.hidden ? [] : streams, shown);
  drawChoice(many ? streams : [], shown);
}

function drawLinks(streams, shown) {
  const before = links.querySelector('[aria-current]')?.hash;
  const entries = streams.map((stream) => ({ ...stream, current: stream.name === shown }));
  fill(links, entries, ({ name }) => name, makeLink);
  const now = links.querySelector('[aria-current]');
  if (now && now.hash !== before) now.scrollIntoView({ block: 'nearest', inline: 'nearest' });
}

function drawChoice(streams, shown) {
  const wanted = JSON.stringify([streams, shown]);
  if (wanted === drawn) return; // somebody may be choosing
  drawn = wanted;
  fill(choice, streams, ({ name }) => name, makeOption);
  if (shown !== null) choice.value = shown;
  const of = (level) => streams.filter((stream) => stream.level === level).length;
  write(
    counts,
    LEVELS.filter(of)
      .map((level) => `${figure(of(level))} ${level}`)
      .join(' · '),
  );
}
