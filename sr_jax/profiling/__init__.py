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

sr-jax profile --target computes what a step would need on GPUs that are not present.

  target.py           compiles a config for GPUs, prints and writes the results
  target_file.py      reads the figures of GPUs, targets/NAME.txt
  gpu_compiler.py     compiles for a GPU that is not present
  target_programs.py  the steps of a config and an evaluation, compiled
  target_analysis.py  what they need on a GPU: memory, kernels, times
  target_fit.py       the largest batch that fits
  target_times.py     times from FLOPs, bytes and kernels
  target_table.py     prints the results
"""
