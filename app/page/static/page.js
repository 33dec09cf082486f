/** The page: takes each document from the stream of events and draws the chosen stream's panels. */

import { connect } from './live.js';
import { drawAlerts } from './panels/alerts.js';
import { drawDeadLetters } from './panels/dead_letters.js';
import { drawDrift } from './panels/drift.js';
import { drawFlow, drawLabels } from './panels/flow.js';
import { drawModels } from './panels/models.js';
import { drawState } from './panels/state.js';
import { chosen, drawStreams } from './panels/streams.js';
import { drawTimeline } from './panels/timeline.js';
import { drawConnection } from './panels/connection.js';
import { followTheme } from './theme.js';

const PANELS = [drawFlow, drawLabels, drawModels, drawAlerts, drawDrift, drawTimeline, drawDeadLetters];

let board = null;
let connection = { open: false, since: Date.now() };

function draw() {
  drawConnection(connection, board);
  const stream = board && chosen(board.streams);
  drawStreams(board ? board.streams : [], stream);
  drawState(stream, board, connection);
  if (stream) PANELS.forEach((panel) => panel(stream));
}

followTheme(draw);
addEventListener('hashchange', draw);
document.addEventListener('visibilitychange', draw);
connect('live', {
  received: (document) => {
    board = document;
    draw();
  },
  changed: (open) => {
    connection = { open, since: Date.now() };
    draw();
  },
});
draw();
