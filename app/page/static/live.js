/** The stream of documents: one EventSource, open while the page is looked at; a hidden tab would cost as much. */

const RETRY_MS = 2000;

/** Calls `received` with each document, and `changed` with whether the connection stands when that changes. */
export function connect(address, { received, changed }) {
  let source = null;
  let open = false;
  let retry = 0;
  const become = (now) => {
    if (now !== open) changed((open = now));
  };
  const stop = () => {
    clearTimeout(retry);
    source?.close();
    source = null;
  };
  const start = () => {
    stop();
    source = new EventSource(address);
    source.onopen = () => become(true);
    source.onmessage = (event) => {
      become(true);
      received(JSON.parse(event.data));
    };
    source.onerror = () => {
      stop();
      become(false);
      retry = setTimeout(start, RETRY_MS);
    };
  };
  document.addEventListener('visibilitychange', () => (document.hidden ? stop() : start()));
  if (!document.hidden) start();
}
