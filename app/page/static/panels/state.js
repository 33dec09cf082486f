/** The answer of the first five seconds: a band with a shape, a word and a sentence. */

import { write } from '../dom.js';
import { timeOfDay } from '../format.js';
import { mark } from '../marks.js';

const LONG = 110;
const WORDS = { ok: 'Well', watch: 'Watch', act: 'Act', unknown: 'Unknown' };

const unknown = (sentence) => ({ level: 'unknown', sentence, figures: '' });

/** Nobody knows how the models are while the page hears nothing, so each way of hearing nothing is a state of its own. */
function answer(board, phase) {
  if (!board) {
    return unknown(
      phase === 'lost' ? 'The page cannot be reached. Trying again.' : 'The page waits for its first document.',
    );
  }
  const then = timeOfDay(board.generated_time_ms);
  if (phase === 'lost') return unknown(`The connection is lost; this is how it was at ${then}. Trying again.`);
  if (phase === 'connecting') return unknown(`This is how it was at ${then}. The page waits for what is new.`);
  if (board.problem) return unknown(board.problem);
  if (phase === 'silent') {
    return unknown(`Nothing new since ${then}. A document comes once a second: does the worker still run?`);
  }
  return board.stream ? board.stream.state : unknown('No stream is declared: see penstock stream init.');
}

export function drawState(board, { phase }) {
  const { level, sentence, figures } = answer(board, phase);
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
  write(document.getElementById('state-figures'), figures);
  document.title = `${phase === 'paused' ? 'Paused' : WORDS[level]} · ${board?.stream?.name ?? 'Penstock'}`;
}
