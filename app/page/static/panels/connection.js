/** Whether what is shown is live, and of when it is. */

import { write } from '../dom.js';
import { timeOfDay } from '../format.js';

export function drawConnection({ open, since }, board) {
  const place = document.getElementById('connection');
  place.dataset.open = String(open);
  if (!open) {
    write(place, board ? `Not connected since ${timeOfDay(since)}` : 'Connecting');
    return;
  }
  write(place, board ? `Live, ${timeOfDay(board.generated_time_ms)}` : 'Connected');
}
