/** The one dialog: what a chart shows, as a table, with a larger picture where there is one. */

import { element } from './dom.js';

const dialog = document.getElementById('detail');
dialog.querySelector('button').addEventListener('click', () => dialog.close());
dialog.addEventListener('click', (event) => {
  if (event.target === dialog) dialog.close();
});

const cell = (name, value) => element(name, name === 'th' ? { scope: 'col' } : {}, value);

/** Opens the dialog; each row is a list of texts or nodes. */
export function showTable({ title, note = '', picture = null, headings, rows }) {
  dialog.querySelector('h2').textContent = title;
  dialog.querySelector('.note').textContent = note;
  dialog.querySelector('.figure').replaceChildren(...(picture ? [picture] : []));
  dialog.querySelector('thead').replaceChildren(element('tr', {}, ...headings.map((text) => cell('th', text))));
  dialog
    .querySelector('tbody')
    .replaceChildren(...rows.map((row) => element('tr', {}, ...row.map((value) => cell('td', value)))));
  dialog.showModal();
}
