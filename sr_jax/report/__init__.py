"""What a run looks like: a page of curves and pictures, and figures for papers.

  history.py   what a run's folder tells
  curves.py    a curve thinned, smoothed, and what its end says in words
  charts.py    which curves stand in which chart
  gallery.py   pictures of a run or of several, side by side, small enough for a page
  document.py  all of it as one HTML file, with page.css and page.js in it
  figure.py    the comparison figure of papers

`python -m sr_jax.report` is the command line.
"""
