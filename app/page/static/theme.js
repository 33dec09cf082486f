/** Dark or light: the system's choice, until the reader makes one, which this browser keeps. */

const KEY = 'penstock-theme';
const dark = matchMedia('(prefers-color-scheme: dark)');

const kept = () => {
  const theme = localStorage.getItem(KEY);
  return theme === 'dark' || theme === 'light' ? theme : null;
};

const shown = () => kept() ?? (dark.matches ? 'dark' : 'light');

/** Applies the theme now and whenever it changes, then calls `redraw`, for charts that are painted in its colours. */
export function followTheme(redraw) {
  const button = document.getElementById('theme');
  const apply = () => {
    const theme = shown();
    document.documentElement.dataset.theme = theme;
    button.textContent = theme === 'dark' ? 'Light' : 'Dark';
    button.setAttribute('aria-label', `Switch to the ${button.textContent.toLowerCase()} theme`);
  };
  const change = () => {
    apply();
    redraw();
  };
  button.addEventListener('click', () => {
    localStorage.setItem(KEY, shown() === 'dark' ? 'light' : 'dark');
    change();
  });
  dark.addEventListener('change', change);
  apply();
}
