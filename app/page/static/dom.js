/** Making and renewing elements. Data reaches the page as text and attributes only, never as markup. */

const SVG = 'http://www.w3.org/2000/svg';

function build(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === 'function') node.addEventListener(name, value);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...children.filter((child) => child !== null && child !== ''));
  return node;
}

/** An HTML element; an attribute whose value is a function listens to the event of its name. */
export const element = (name, attributes = {}, ...children) =>
  build(document.createElement(name), attributes, children);

/** An SVG element. */
export const svg = (name, attributes = {}, ...children) =>
  build(document.createElementNS(SVG, name), attributes, children);

/** Sets the text where it differs: an equal text is no news to a screen reader. */
export function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Writes what is beside a panel's heading, with all of it in the title where the line is too short. */
export function note(panel, text) {
  const place = panel.querySelector('.note');
  write(place, text);
  place.title = text;
}

const drawn = new WeakMap();

/**
 * Makes `container` hold one element per item, in order. An element whose item is as it was stays, with its focus and
 * what was opened in it; one that changed is made anew and takes these over.
 */
export function fill(container, items, keyOf, make) {
  const before = drawn.get(container) ?? new Map();
  const after = new Map();
  for (const item of items) {
    const key = keyOf(item);
    const signature = JSON.stringify(item);
    const old = before.get(key);
    after.set(key, old?.signature === signature ? old : { signature, node: succeed(old?.node, make(item)) });
  }
  drawn.set(container, after);
  const nodes = [...after.values()].map((entry) => entry.node);
  if (nodes.length !== container.childNodes.length || nodes.some((node, at) => node !== container.childNodes[at])) {
    const focused = container.contains(document.activeElement) ? document.activeElement : null;
    container.replaceChildren(...nodes);
    if (focused?.isConnected) focused.focus({ preventScroll: true });
  }
  nodes.forEach((node) => {
    if (!node.dataset.focus) return;
    delete node.dataset.focus;
    focusable(node)?.focus({ preventScroll: true });
  });
}

const focusable = (node) => (node.matches('button, summary') ? node : node.querySelector('button, summary'));

function succeed(old, node) {
  if (!old) return node;
  const open = old.querySelector('details')?.open;
  if (open) node.querySelector('details')?.setAttribute('open', '');
  if (old.contains(document.activeElement)) node.dataset.focus = 'here';
  return node;
}
