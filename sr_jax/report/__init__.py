"""HTML reports of runs, and comparison figures for papers.

  history.py     reads what a run's folder records
  sweeps.py      finds the runs of a folder
  headline.py    finds the best step of a run and compares it with bicubic
  overview.py    the table of several runs: where they differ, their best scores
  curves.py      thins and smooths a curve, and describes its trend in words
  charts.py      decides which curves are drawn in which chart
  gallery.py     selects images of one or several runs and encodes them for the page
  sliders.py     the HTML of images and sliders
  benchmarks.py  benchmark tables
  facts.py       the tables of network, machine, data and config
  html.py        HTML elements
  page.py        writes the report as one HTML file, with page.css and page.js inside
  figure.py      draws the comparison figure of a paper
  sheet.py       draws the sheet of training examples

`sr-jax report` is the command line.
"""
