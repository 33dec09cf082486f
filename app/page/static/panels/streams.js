/** Which stream is shown: the one that the address names after `#`, else the first. */

import { element, fill, write } from '../dom.js';
import { mark } from '../marks.js';

/** The chosen stream, or null where there is none. */
export function chosen(streams) {
  const name = decodeURIComponent(location.hash.slice(1));
  return streams.find((stream) => stream.name === name) ?? streams[0] ?? null;
}

/** One stream is a heading; of several, each is a link that also tells how it is. */
export function drawStreams(streams, stream) {
  if (stream) write(document.getElementById('stream'), stream.name);
  const place = document.getElementById('streams');
  place.hidden = streams.length < 2;
  document.getElementById('stream').classList.toggle('unseen', !place.hidden);
  const links = streams.map(({ name, state }) => ({ name, level: state.level, current: name === stream?.name }));
  fill(
    place,
    place.hidden ? [] : links,
    ({ name }) => name,
    ({ name, level, current }) =>
      element(
        'a',
        { href: `#${encodeURIComponent(name)}`, 'aria-current': current ? 'page' : null },
        mark(level),
        name,
        element('span', { class: 'unseen' }, `: ${level}`),
      ),
  );
}
