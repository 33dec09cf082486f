/** The page: takes each document from the stream of events and draws the panels of the stream that is shown. */

import { connect } from './live.js';
import { drawAlerts } from './panels/alerts.js';
import { drawConnection } from './panels/connection.js';
import { drawDeadLetters } from './panels/dead_letters.js';
import { drawDrift } from './panels/drift.js';
import { drawFlow, drawLabels } from './panels/flow.js';
import { drawModels } from './panels/models.js';
import { drawState } from './panels/state.js';
import { drawStreams, named } from './panels/streams.js';
import { drawTimeline } from './panels/timeline.js';
import { renewTimes } from './format.js';
import { followTheme } from './theme.js';

const PANELS = [drawFlow, drawLabels, drawModels, drawAlerts, drawDrift, drawTimeline, drawDeadLetters];

let board = null;
let connection = { phase: 'connecting', since: Date.now() };
let unknown = null; // a name that the server has refused

function draw() {
  drawConnection(connection, board);
  drawStreams(board);
  drawState(board, connection);
  renewTimes();
  if (board?.stream) PANELS.forEach((panel) => panel(board.stream));
}

/** The stream that the address names, if there is one of that name, else the one that is shown. */
function wanted() {
  const name = named();
  return name === null || name === unknown ? (board?.stream?.name ?? null) : name;
}

function address() {
  const name = wanted();
  return name === null ? 'live' : `live?stream=${encodeURIComponent(name)}`;
}

/** Asks for the stream that the address names now. */
function look() {
  unknown = null;
  if (wanted() !== (board?.stream?.name ?? null)) reconnect();
}

followTheme(draw);
const reconnect = connect(address, {
  told: (now, document) => {
    connection = now;
    board = document ?? board;
    if (document?.streams.some(({ name }) => name === unknown)) look();
    draw();
  },
  refused: () => {
    const before = unknown;
    unknown = named();
    return unknown !== before;
  },
});
addEventListener('hashchange', look);
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  document.getElementById('board').focus();
});
draw();
