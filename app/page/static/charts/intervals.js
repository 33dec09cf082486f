/** Figures over time with their intervals as bands: a uPlot that lives as long as its variants and its theme. */

import { ticks } from '../format.js';

const DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3]];
const BAND = 0.14;
const AROUND_S = 3 * 86_400;
const LINE_PX = 2;
const MARKED = 'this champion';
const MARK_GAP_PX = 5;
const WIDE = 0.4;
const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2];

const [VALUE, LOW, HIGH, MATURE] = [1, 2, 3, 5];
const COLUMNS = 4;

let chart = null;
let drawnFor = '';
let marked = null;

/** The ends of all windows, in milliseconds, each once and in order. */
export const timesOf = (windows) =>
  [
    ...new Set(
      Object.values(windows)
        .flat()
        .map(([until]) => until),
    ),
  ].sort((one, other) => one - other);

/**
 * uPlot's columns: all times, then for each variant its values, highs and lows, null where it has no window that is
 * mature, and the values of those that are not.
 */
function columns(windows) {
  const times = timesOf(windows);
  const lines = Object.values(windows).flatMap((points) => {
    const at = new Map(points.map((point) => [point[0], point]));
    const column = (field, mature) =>
      times.map((time) => (at.get(time)?.[MATURE] === mature ? at.get(time)[field] : null));
    return [column(VALUE, true), column(HIGH, true), column(LOW, true), column(VALUE, false)];
  });
  return [times.map((time) => time / 1000), ...lines];
}

function faint(colour) {
  return colour.replace(/^rgb\((.*)\)$/, `rgba($1, ${BAND})`);
}

function series(tones, ground) {
  return tones.flatMap((stroke, at) => [
    {
      stroke,
      width: at ? 1.5 : 2,
      dash: DASHES[at % DASHES.length],
      spanGaps: true,
      points: { size: 4, fill: stroke },
    },
    { stroke: null, points: { show: false } },
    { stroke: null, points: { show: false } },
    { stroke, paths: () => null, points: { show: true, size: 6, fill: ground } },
  ]);
}

function axis(style, more) {
  const line = { stroke: style.getPropertyValue('border-color'), width: 1 };
  return { stroke: style.color, font: `11px ${style.fontFamily}`, grid: line, ticks: { show: false }, ...more };
}

function options(place, tones, hovered) {
  const style = getComputedStyle(place);
  return {
    width: place.clientWidth,
    height: place.clientHeight,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 6 } },
    padding: [8, 18, 0, 0],
    scales: {
      x: { range: stretch },
      y: { range: (plot, low, high) => spread(...(extent(plot.data) ?? [low, high])) },
    },
    axes: [
      axis(style, { values: (_, seconds) => ticks(seconds), space: 80, size: 26 }),
      axis(style, {
        values: (_, values) => values.map((value) => value.toFixed(2)),
        incrs: STEPS,
        space: 24,
        size: 44,
      }),
    ],
    series: [{}, ...series(tones, getComputedStyle(place.parentElement).backgroundColor)],
    bands: tones.map((tone, at) => ({ series: [COLUMNS * at + 2, COLUMNS * at + 3], fill: faint(tone) })),
    hooks: {
      draw: [(plot) => drawMark(plot, style.color), (plot) => drawLone(plot, tones)],
      setCursor: [(plot) => hovered(plot.cursor.idx ?? null)],
    },
  };
}

/** When the model that serves began to: a vertical line, where the windows are of that time and not of a replay's. */
function drawMark(plot, colour) {
  const times = plot.data[0];
  if (marked === null || marked / 1000 < times[0] || marked / 1000 > times.at(-1)) return;
  const { left, top, width, height } = plot.bbox;
  const x = Math.min(Math.max(plot.valToPos(marked / 1000, 'x', true), left), left + width);
  plot.ctx.fillStyle = colour;
  plot.ctx.fillRect(x, top, 1, height);
  plot.ctx.textBaseline = 'top';
  plot.ctx.textAlign = x > left + width / 2 ? 'right' : 'left';
  plot.ctx.fillText(MARKED, x + (x > left + width / 2 ? -MARK_GAP_PX : MARK_GAP_PX), top + MARK_GAP_PX);
}

/** A window without neighbours has no band: its interval is a line from low to high, beside those of other variants. */
function drawLone(plot, tones) {
  tones.forEach((tone, at) => {
    const [values, highs, lows] = [1, 2, 3].map((offset) => plot.data[COLUMNS * at + offset]);
    values.forEach((_, index) => {
      const alone = (highs[index - 1] ?? null) === null && (highs[index + 1] ?? null) === null;
      if (highs[index] === null || !alone) return;
      const x = plot.valToPos(plot.data[0][index], 'x', true);
      plot.ctx.fillStyle = tone;
      const top = plot.valToPos(highs[index], 'y', true);
      plot.ctx.fillRect(
        x + LINE_PX * (2 * at + 1 - tones.length),
        top,
        LINE_PX,
        plot.valToPos(lows[index], 'y', true) - top,
      );
    });
  });
}

/** The range of times; a single window, for which uPlot would show years, stands in the middle of six days. */
function stretch({ data: [times] }, first, last) {
  return times.length === 1 ? [times[0] - AROUND_S, times[0] + AROUND_S] : [first, last];
}

/** The range of the figures that say something: a wide interval, of few events, would press all others flat. */
export function extent([times, ...columnsOfAll]) {
  const said = [];
  for (let at = 0; at < columnsOfAll.length; at += COLUMNS) {
    const [values, highs, lows, early] = columnsOfAll.slice(at, at + COLUMNS);
    times.forEach((_, index) => {
      if (highs[index] === null || highs[index] - lows[index] <= WIDE) {
        said.push(values[index], highs[index], lows[index], early[index]);
      }
    });
  }
  const known = said.filter((figure) => figure !== null);
  return known.length ? [Math.min(...known), Math.max(...known)] : null;
}

function spread(low, high) {
  if (low === null) return [0.5, 1];
  const margin = Math.max((high - low) * 0.08, 0.01);
  return [Math.max(0, low - margin), Math.min(1, high + margin)];
}

/**
 * Draws `windows` by variant in `tones`, and a line at `mark`, milliseconds or null; `hovered` hears the index of the
 * window under the pointer, or null. Windows that are not mature are hollow points.
 */
export function drawIntervals(place, { windows, tones, mark, hovered }) {
  marked = mark;
  const wanted = JSON.stringify([Object.keys(windows), tones]);
  if (chart && drawnFor === wanted) {
    chart.setData(columns(windows));
    return;
  }
  chart?.destroy();
  chart = new globalThis.uPlot(options(place, tones, hovered), columns(windows), place);
  drawnFor = wanted;
}

/** Keeps the chart as large as its place. */
export function followSize(place) {
  new ResizeObserver(() => chart?.setSize({ width: place.clientWidth, height: place.clientHeight })).observe(place);
}
