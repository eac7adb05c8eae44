"""sr-jax profile measures what a training step waits for; sr-jax summary describes the networks.

  run.py         measures every phase of a config and writes the results
  parts.py       runs a training step in parts, each compiled on its own
  timing.py      times compiled programs, one by one and in a row
  ceilings.py    measures the highest rates of the device
  products.py    counts FLOPs and bytes of convolutions and matrix products in a jaxpr
  hlo.py         parses the text of a program that XLA compiled
  kernel_costs.py  FLOPs and bytes of one kernel of such a program
  program.py     counts the kernels of a training step, compiled for a GPU that may not be present
  traces.py      records traces of jax.profiler and reads the idle time from them
  bottleneck.py  decides what limits a step and which config key to try
  table.py       prints the results
  summary.py     tables of the networks, layer by layer
"""
