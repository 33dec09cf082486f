/**
 * The stream of documents: one EventSource, open while the page is looked at; a hidden tab would cost as much.
 *
 * A document comes once a second while all is alive, so one that does not come is news. The phases are: `connecting`
 * until the first document, and again when a hidden page is looked at; `live`; `silent`, when none has come for five
 * seconds; `lost`, when there is no connection; `paused`, while the page is hidden.
 */

const SILENT_MS = 5000;
const LOOK_MS = 1000;
const FIRST_RETRY_MS = 2000;
const LONGEST_RETRY_MS = 30_000;

/**
 * Calls `told` with the phase, since when it is, and the document, or null where the phase has changed without one; and
 * `refused` when the server has answered that it has no documents at `address()`: it returns whether to try another one
 * at once. Returns what connects anew, for when the address has changed.
 */
export function connect(address, { told, refused }) {
  let source = null;
  let phase = 'connecting';
  let since = Date.now();
  let wait = FIRST_RETRY_MS;
  let retry = 0;
  let heard = Date.now();
  let asked = heard;

  const become = (next, document = null) => {
    if (next === phase && !document) return;
    if (next !== phase) since = Date.now();
    phase = next;
    told({ phase, since }, document);
  };
  const stop = () => {
    clearTimeout(retry);
    source?.close();
    source = null;
  };
  const start = () => {
    stop();
    asked = Date.now();
    source = new EventSource(address());
    source.onmessage = (event) => {
      heard = Date.now();
      wait = FIRST_RETRY_MS;
      become('live', JSON.parse(event.data));
    };
    source.onerror = () => {
      const again = source.readyState === EventSource.CLOSED && refused();
      stop();
      if (again) {
        start();
        return;
      }
      become('lost');
      retry = setTimeout(start, wait);
      wait = Math.min(2 * wait, LONGEST_RETRY_MS);
    };
  };
  const listen = () => {
    const now = Date.now();
    if (phase === 'live' && now - heard > SILENT_MS) become('silent');
    if (phase === 'silent' && now - Math.max(heard, asked) > LONGEST_RETRY_MS) start();
  };
  const turn = () => {
    if (document.hidden) stop();
    else start();
    become(document.hidden ? 'paused' : 'connecting');
  };

  setInterval(listen, LOOK_MS);
  document.addEventListener('visibilitychange', turn);
  if (document.hidden) become('paused');
  else start();
  return () => source && start();
}
