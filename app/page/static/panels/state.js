/** The answer of the first five seconds: a band with a shape, a word and a sentence. */

import { write } from '../dom.js';
import { timeOfDay } from '../format.js';
import { mark } from '../marks.js';

const LONG = 110;
const WORDS = { ok: 'Well', watch: 'Watch', act: 'Act', unknown: 'Unknown' };

/** Nobody knows how the models are while the page hears nothing, so a lost connection is a state of its own. */
function answer(stream, board, connection) {
  const unknown = (sentence) => ({ level: 'unknown', sentence });
  if (!connection.open && !board) return unknown('The page waits for its first document.');
  if (!connection.open) {
    return unknown(
      `The connection is lost; this is how it was at ${timeOfDay(board.generated_time_ms)}. Trying again.`,
    );
  }
  if (!board) return unknown('The page waits for its first document.');
  if (board.problem) return unknown(board.problem);
  return stream ? stream.state : unknown('No stream is declared: see penstock stream init.');
}

export function drawState(stream, board, connection) {
  const { level, sentence } = answer(stream, board, connection);
  const band = document.getElementById('state');
  if (!band.dataset.drawn || band.dataset.level !== level) {
    document.getElementById('state-mark').replaceChildren(mark(level));
    band.dataset.drawn = 'true';
  }
  band.dataset.level = level;
  write(document.getElementById('state-word'), WORDS[level]);
  const [, first, rest] = /^(.+?\.) (\p{Lu}.*)$/su.exec(sentence) ?? [null, sentence, ''];
  const headline = document.getElementById('state-sentence');
  headline.classList.toggle('long', first.length > LONG);
  write(headline, first);
  write(document.getElementById('state-rest'), rest);
  document.title = `${document.hidden ? 'Paused' : WORDS[level]} · ${stream ? stream.name : 'Penstock'}`;
}
