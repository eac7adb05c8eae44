"""Compiled programs: the kernels of a step, their parts and kinds, FLOPs and bytes by hand."""

import pathlib

import jax
import pytest

from sr_jax.errors import InputError
from sr_jax.profiling import hlo, kernel_costs, program
from sr_jax.profiling.products import products
from tests.benchmarks import kernels
from tests.golden import make_programs

GOLDEN = pathlib.Path(__file__).parent / 'golden'
LOOP = (GOLDEN / 'hopper-loop.hlo.txt').read_text()
LAYERS = (GOLDEN / 'hopper-layers.hlo.txt').read_text()
WRITTEN_BY_HAND = (GOLDEN / 'handwritten.hlo.txt').read_text()
CONVOLUTION = 2 * (2 * 4 * 4 * 32) * (3 * 3 * 32)  # FLOPs of each one in LOOP
KERNEL_BYTES = 2 * 3 * 3 * 32 * 32  # of a convolution's kernel, in bfloat16


def launches(text: str) -> dict[str, tuple]:
  """Returns {name: (program, kernel, its computation)} of what a step launches."""
  parsed = hlo.Program(text)
  return {launch.kernel.name: (parsed, *launch[:2])
          for launch in program.launches(parsed, program.step(parsed))}


def costs(launch: tuple) -> tuple[dict[str, float], float]:
  """Returns ({dtype of a product or '': FLOPs}, bytes) of a kernel."""
  found = {}
  for dtype, flops in kernel_costs.flops(*launch):
    found[dtype] = found.get(dtype, 0) + flops
  nonzero = {dtype: flops for dtype, flops in found.items() if flops}
  return nonzero, kernel_costs.moved_bytes(*launch)


def test_a_step_is_the_body_of_the_device_loop_and_a_scan_counts_each_iteration():
  parsed = hlo.Program(LOOP)
  assert program.step(parsed) == 'region_0.5'
  counts = program.read(LOOP)
  # Outside the scan: a copy and a broadcast that start it, one for the batch, two for the update.
  inside = ['pad', 'add', 'cast', 'conv', 'tanh', 'conv', 'losses', 'input gradient', 'tanh',
            'kernel gradient', 'kernel gradient', 'add']
  assert counts.kernels == 5 + 3 * len(inside)
  assert counts.kernels_by_part == {
      'batch': 1, 'optimiser': 2, 'losses': 3, 'generator': 3 * (1 + 5 + 2), 'other': 2 + 3 * 3}
  assert counts.convolutions == {'cuDNN bfloat16 NHWC': 3 * 5}
  assert counts.product_flops == {'bfloat16': 3 * 5 * CONVOLUTION}
  assert (counts.copies, counts.transposes, counts.unknown_loops) == (2 + 3 * 2, 0, 0)


def test_flops_of_products_are_those_of_the_jaxpr():
  jaxpr = jax.make_jaxpr(make_programs.loop)(*make_programs.shapes(make_programs.LOOP_SHAPES))
  assert program.read(LOOP).product_flops['bfloat16'] == pytest.approx(
      products(jaxpr)['flops'], rel=0.01)


@pytest.mark.parametrize(('name', 'images'), [
    # Bytes in bfloat16 of the images that are read and written besides the 3x3 kernel.
    ('cudnn-conv.3', 2 * (2 * 9 * 9 * 32) + 2 * (2 * 4 * 4 * 32)),  # stride 2, padded
    ('cudnn-conv.4', 2 * 2 * (2 * 4 * 4 * 32)),
    ('cudnn-conv-bw-input.1', 2 * 2 * (2 * 4 * 4 * 32)),
    ('cudnn-conv-bw-filter.3', 2 * 2 * (2 * 4 * 4 * 32)),
    ('cudnn-conv-bw-filter.4', 2 * (2 * 9 * 9 * 32) + 2 * (2 * 4 * 4 * 32))])
def test_a_convolution_and_both_its_gradients(name, images):
  launch = launches(LOOP)[name]
  assert kernel_costs.convolution(*launch) == 'cuDNN bfloat16 NHWC'
  assert costs(launch) == ({'bfloat16': CONVOLUTION}, images + KERNEL_BYTES)


def test_of_a_large_bank_only_the_slice_is_read():
  launch = launches(LOOP)['loop_multiply_fusion']
  count = 3 * 2 * 8 * 8 * 32
  flops, moved = costs(launch)
  assert moved == pytest.approx(3 * count, abs=16)  # uint8 in, bfloat16 out, an index
  assert flops[''] == pytest.approx(count, abs=16)  # one product an element
  assert program.part(*launch[:2]) == 'batch'


def test_a_convolution_with_bias_and_activation_is_one_call():
  launch = launches(LAYERS)['cudnn-conv-bias-activation.3']
  images = 2 * 8 * 8 * 32
  assert kernel_costs.convolution(*launch) == 'cuDNN bfloat16 NHWC'
  assert costs(launch) == ({'bfloat16': 2 * images * 3 * 3 * 32},
                           2 * 2 * images + KERNEL_BYTES + 2 * 32)


def test_a_matrix_product_counts_as_padded():
  """XLA pads 2 rows to 8; the workspace of 32 MiB is not traffic."""
  launch = launches(LAYERS)['custom-call.3']
  assert costs(launch) == ({'bfloat16': 2 * 8 * 2048 * 64}, 2 * (8 * 2048 + 2048 * 64 + 8 * 64))
  assert not kernel_costs.convolution(*launch)


def test_kernels_that_only_move_data():
  found = launches(LAYERS)
  moved = {name: kernel_costs.moved(*launch) for name, launch in found.items()}
  assert moved == {
      'wrapped_transpose': 'transpose', 'wrapped_transpose.1': 'transpose',
      'input_concatenate_fusion': 'copy', 'loop_pad_fusion': 'copy', 'wrapped_slice': 'copy',
      'cudnn-conv-bias-activation.3': '', 'custom-call.3': ''}
  assert costs(found['input_concatenate_fusion']) == ({}, 2 * 4 * (128 * 256 + 100))
  assert costs(found['wrapped_transpose.1']) == ({}, 2 * 4 * 128 * 256)
  assert costs(found['wrapped_slice']) == ({}, 2 * 2 * 2 * 64)  # of 8 rows 2 are read


def test_branches_calls_and_loops_of_unknown_length():
  counts = program.read(WRITTEN_BY_HAND)  # the loop has fewer kernels than the rest
  assert counts.kernels == 1 + 2 + 2 + 4 + 1
  assert counts.kernels_by_part == {'vgg': 1, 'other': 9}
  assert counts.unknown_loops == 1
  assert counts.convolutions == {'XLA float32 NHWC': 1}
  assert counts.product_flops == {'float32': 2 * 4 * 4 * 5 * 3 * 3 * 3}
  assert counts.flops == {'vgg': 4000, 'other': 2 * 4 * 4 * 5 * 27 + 5 * 8 * 8 * 3}
  # A copy in two halves, from rows first to columns first; an update in place writes one row.
  assert (counts.copies, counts.transposes) == (2, 1)
  found = launches(WRITTEN_BY_HAND)
  assert costs(found['written'])[1] == 4 + 2 * 4 * 4
  assert costs(found['two'])[1] == (4 + 2) * 2 * 4  # cast, then sliced: two rows are read
  assert costs(found['start'])[1] == 2 * 4 * 4000
  assert costs(found['mean'])[1] == 4 * (4000 + 4 + 1)


def test_most_kernels_decide_which_loop_is_the_step():
  entry = WRITTEN_BY_HAND.replace('  %conv = ', '  %ignored = f32[] constant(0) //')
  entry = entry.replace(' call(%x), to_apply=%large', ' bitcast(%x)')
  entry = entry.replace(' conditional(%which, %x, %x), branch_computations={%small, %large}',
                        ' bitcast(%x)')
  assert program.step(hlo.Program(entry)) == 'body'
  assert program.read(entry).kernels == 4


@pytest.mark.parametrize('text', ['', 'HloModule jit_f\n', 'module @jit_f {\n}\n'])
def test_other_text_is_refused(text):
  with pytest.raises(InputError, match='ENTRY'):
    program.read(text)


def test_the_benchmark_tells_what_is_wrong():
  counts = program.read(LOOP)
  compiled = kernels.Compiled(LOOP, {'trace': 1.0}, counts.product_flops['bfloat16'])
  assert not kernels.problems(counts, compiled, 41)
  assert '41 kernels' in kernels.problems(counts, compiled, 40)[0]
  assert '0.50' in kernels.problems(counts, compiled._replace(flops=2 * compiled.flops), None)[0]
  slow = counts._replace(convolutions={'cuDNN bfloat16 NHWC': 14, 'XLA float32 NHWC': 1})
  assert ['XLA float32 NHWC' in line for line in kernels.problems(slow, compiled, 50)] == [True]
  assert 'generator 24' in kernels.describe('loop', counts, compiled)
