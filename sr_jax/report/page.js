'use strict';

// The palette of Okabe and Ito, which is safe for colour-blind readers; brighter on a dark background.
const COLOURS = {
  light: ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#8c6bb1'],
  dark: ['#56b4e9', '#f08a4b', '#2fc19a', '#e3a1c9', '#e6c229', '#8aa4ff', '#c7a6f0']};
const dark = matchMedia('(prefers-color-scheme: dark)');
const data = JSON.parse(document.getElementById('data').textContent);
// More runs than colours: from dark blue to yellow in the order of the table.
const SCALE = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
const MANY = data.runs.length > COLOURS.light.length;
const places = [...document.querySelectorAll('.chart')];

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

async function loadPlotly() {
  const text = document.getElementById('plotly').textContent;
  const compressed = Uint8Array.from(atob(text), character => character.charCodeAt(0));
  const stream = new Blob([compressed]).stream().pipeThrough(new DecompressionStream('gzip'));
  const script = document.createElement('script');
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

function colourOf(index, count) {
  const colours = COLOURS[dark.matches ? 'dark' : 'light'];
  if (!MANY) return colours[index % colours.length];
  // Without the end of the scale that the background hides.
  const at = ((dark.matches ? 0.2 : 0) + 0.8 * index / (count - 1)) * (SCALE.length - 1);
  const low = Math.min(Math.floor(at), SCALE.length - 2);
  return `rgb(${SCALE[low].map((part, i) => Math.round(part + (at - low) * (SCALE[low + 1][i] - part)))})`;
}

function labelsOf(chart) {
  return [...new Set(chart.lines.filter(line => line.run !== null).map(line => line.label))];
}

// With several runs each run has a colour; with one run each line has a colour.
function traces(chart) {
  const several = data.runs.length > 1;
  const labels = labelsOf(chart);
  const inLegend = new Set();
  const last = Math.max(1, ...chart.lines.flatMap(line => line.x ? [line.x[line.x.length - 1]] : []));
  return chart.lines.map(line => {
    const index = labels.indexOf(line.label);
    const shared = line.run === null;
    const shade = shared ? colour('--soft') : colourOf(several ? line.run : index, data.runs.length);
    const name = several && !shared
      ? data.runs[line.run] + (labels.length > 1 ? ', ' + line.label : '') : line.label;
    const level = line.level !== undefined;
    const first = !line.faint && !inLegend.has(name);
    if (first) inLegend.add(name);
    return {
      type: 'scatter', name, x: level ? [0, last] : line.x, y: level ? [line.level, line.level] : line.y,
      mode: !level && !line.smooth && line.x.length <= 40 ? 'lines+markers' : 'lines',
      opacity: line.faint ? 0.3 : 1, legendgroup: name, showlegend: first,
      hoverinfo: line.smooth ? 'skip' : undefined,
      hovertemplate: line.smooth ? undefined : '%{y:.5~g}<extra>' + name.replace(/</g, '&lt;') + '</extra>',
      marker: {size: 5},
      line: {color: shade, width: line.faint ? 1 : 1.8,
             dash: level ? 'dot' : several && index ? 'dash' : 'solid'},
    };
  });
}

// Plotly draws a constant of 0.0002 as zero between -1 and 1.
function rangeOfConstant(chart) {
  const values = chart.lines.flatMap(line => line.level !== undefined ? [line.level] : line.y)
    .filter(value => value !== null);
  const lowest = Math.min(...values), highest = Math.max(...values);
  if (!values.length || highest - lowest > 1e-6 * Math.abs(highest)) return undefined;
  return lowest ? [Math.min(0, 2 * lowest), Math.max(0, 2 * lowest)] : [0, 1];
}

function layout(chart, logarithmic) {
  const soft = colour('--soft'), rule = colour('--rule');
  const axis = {gridcolor: rule, linecolor: rule, zeroline: false, automargin: true};
  const boundaries = chart.boundaries.map(({at}) => ({
    type: 'line', x0: at, x1: at, y0: 0, y1: 1, yref: 'paper', line: {color: soft, width: 1, dash: 'dash'}}));
  const checkpoints = chart.checkpoints.map(at => ({
    type: 'line', x0: at, x1: at, y0: 0, y1: 0.04, yref: 'paper', line: {color: soft, width: 2}}));
  const dashed = MANY ? labelsOf(chart).slice(1) : [];
  const title = chart.title + (dashed.length ? ` (dashed: ${dashed.join(', ')})` : '');
  return {
    title: {text: title, font: {size: 14}, x: 0.02, xanchor: 'left'},
    margin: {l: 50, r: 10, t: 36, b: 36}, height: 300,
    paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)',
    font: {color: colour('--fore'), size: 12}, hovermode: MANY ? 'closest' : 'x unified',
    hoverlabel: {bgcolor: colour('--panel'), bordercolor: rule, font: {color: colour('--fore')}},
    xaxis: {...axis, title: {text: ''}, rangemode: 'tozero', hoverformat: ',d', tickformat: '~s'},
    yaxis: {...axis, type: logarithmic && chart.loss ? 'log' : 'linear',
            range: logarithmic && chart.loss ? undefined : rangeOfConstant(chart),
            tickformat: chart.percent ? '.0%' : undefined, exponentformat: 'power'},
    shapes: [...boundaries, ...checkpoints],
    annotations: chart.boundaries.map(({at, text}) => ({
      x: at, y: 1, yref: 'paper', yanchor: 'bottom', text, showarrow: false,
      font: {size: 10, color: soft}})),
    legend: {orientation: 'h', y: -0.14, font: {size: 11}},
    // The table of the runs is the legend of many runs.
    showlegend: !MANY && (data.runs.length > 1 || new Set(chart.lines.map(line => line.label)).size > 1),
  };
}

function draw() {
  for (const swatch of document.querySelectorAll('.swatch')) {
    swatch.style.background = colourOf(+swatch.dataset.run, data.runs.length);
  }
  const logarithmic = document.getElementById('logarithmic')?.checked;
  // Without a pointer that can hover, the tool bar would always cover the title.
  const toolBar = matchMedia('(hover: hover)').matches ? 'hover' : false;
  for (const place of places) {
    const chart = data.charts[place.dataset.chart];
    Plotly.react(place, traces(chart), layout(chart, logarithmic), {
      responsive: true, displaylogo: false, displayModeBar: toolBar,
      modeBarButtonsToRemove: ['select2d', 'lasso2d', 'autoScale2d']});
  }
}

for (const copy of document.querySelectorAll('img[data-of]')) {
  copy.src = document.getElementById(copy.dataset.of).src;
}

// A link to an image unfolds it.
function unfold() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const details = target?.querySelector('details');
  if (details) details.open = true;
}
addEventListener('hashchange', unfold);
unfold();

for (const slider of document.querySelectorAll('.slider')) {
  const layers = [...slider.querySelectorAll('img')];
  const [left, right] = slider.querySelectorAll('select');
  const choose = () => layers.forEach((layer, index) => {
    layer.hidden = index != left.value && index != right.value;
    layer.classList.toggle('before', index == left.value && left.value != right.value);
  });
  left.addEventListener('change', choose);
  right.addEventListener('change', choose);
  slider.querySelector('input').addEventListener('input', event => {
    slider.style.setProperty('--at', event.target.value + '%');
  });
  choose();
}

if (places.length) {
  loadPlotly().then(() => {
    draw();
    document.getElementById('logarithmic')?.addEventListener('change', draw);
    dark.addEventListener('change', draw);
  }).catch(error => {
    for (const place of places) place.textContent = 'Cannot draw the curves; a newer browser may be needed (' + error + ').';
  }).finally(() => {
    document.documentElement.dataset.drawn = Math.round(performance.now());
  });
}
