/** Whether what is shown is live, and of when it is. */

import { write } from '../dom.js';
import { timeOfDay } from '../format.js';

function told({ phase, since }, board) {
  if (phase === 'live') return `Live, ${timeOfDay(board.generated_time_ms)}`;
  if (phase === 'silent') return `Nothing new since ${timeOfDay(board.generated_time_ms)}`;
  if (phase === 'lost') return board ? `Not connected since ${timeOfDay(since)}` : 'Not connected';
  return phase === 'paused' ? 'Paused' : 'Connecting';
}

export function drawConnection(connection, board) {
  const place = document.getElementById('connection');
  place.dataset.phase = connection.phase;
  write(place, told(connection, board));
}
