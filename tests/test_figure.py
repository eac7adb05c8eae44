"""The comparison figure: the position of its box, the text below the crops, refused arguments."""

import re

import numpy as np
import pytest

from sr_jax import images
from sr_jax.metrics import scorer
from sr_jax.report import __main__ as cli
from sr_jax.report import figure


@pytest.fixture
def folders(tmp_path, picture):
  """HR, and two methods that differ in one region of b and little elsewhere."""
  for index, name in enumerate('ab'):
    hr = picture(81, 102, index)
    images.write_image(tmp_path / 'HR' / f'{name}.png', hr)
    for method, noise in (('one', 1), ('two', 2)):
      sr = np.clip(np.int32(hr[:80, :100]) + noise, 0, 255).astype(np.uint8)
      if name == 'b' and method == 'two':
        sr[40:60, 60:80] //= 2
      images.write_image(tmp_path / method / f'{name}_x4.png', sr)
  return tmp_path


def test_the_box_is_where_the_methods_differ_most(folders):
  original = images.read_image(folders / 'HR' / 'b.png')[:80, :100]
  results = [images.read_image(folders / method / 'b_x4.png') for method in ('one', 'two')]
  box = figure.most_different(original, results)
  assert (box.width, box.height) == (32, 32)
  assert box.x <= 60
  assert box.x + 32 >= 80
  assert box.y <= 40
  assert box.y + 32 >= 60
  # A single method is compared with the original.
  alone = figure.most_different(original, results[1:])
  assert 28 <= alone.x <= 60
  assert 28 <= alone.y <= 40
  # Exhaustive search, by the definition.
  variance = np.var([figure._luma(image) for image in results], axis=0)
  sums = {(x, y): variance[y:y + 32, x:x + 32].sum() for y in range(49) for x in range(69)}
  assert sums[box.x, box.y] == pytest.approx(max(sums.values()))


@pytest.mark.parametrize('suffix', ['png', 'pdf', 'svg'])
def test_the_command_chooses_image_and_crop(call, folders, suffix):
  status, out, err = call(cli.main, 'compare', '--hr', 'HR', '--sr', 'First=one', '--sr',
                          '$2$=two', '--lpips', 'none', '--output', f'figure.{suffix}')
  assert (status, err) == (0, '')
  assert out.startswith(f'figure.{suffix}: b, crop ')
  content = (folders / f'figure.{suffix}').read_bytes()
  assert content[:4] == {'png': b'\x89PNG', 'pdf': b'%PDF', 'svg': b'<?xm'}[suffix]
  if suffix == 'svg':  # text remains text
    hr, sr = (images.read_image(folders / path) for path in ('HR/b.png', 'two/b_x4.png'))
    scores = scorer.make_scorer(4, 'none')(sr, hr[:80, :100])
    for text in ('original', 'PSNR', 'First', '$2$', f'{scores["psnr_y"]:.2f} dB'):
      assert text in content.decode()


def test_a_crop_of_one_image_with_lpips(call, folders):
  status, out, _ = call(cli.main, 'compare', '--hr', 'HR/a.png', '--sr', 'x=one/a_x4.png',
                        '--crop', '10,20,30,16', '--output', 'a.png')
  assert (status, out) == (0, 'a.png: a, crop 10,20,30,16\n')
  assert images.image_size(folders / 'a.png')[0] > 200


@pytest.mark.parametrize(('arguments', 'pattern'), [
    ('--sr x=nowhere', 'nowhere: no such'), ('--sr one', '--sr.* one: .*NAME=PATH'),
    ('--sr x=one --sr x=two', '--sr x='), ('--sr original=one', '--sr original='),
    ('--sr x=one --picture c', '--picture c: .*a, b'),
    ('--sr x=one --crop 1,2,3', '--crop.* 1,2,3: .*X,Y,WIDTH,HEIGHT'),
    ('--sr x=one --crop 1,2,0,3', '--crop.* 1,2,0,3: '),
    ('--sr x=one --crop 1,2,3,4', '--picture .*a, b'),
    ('--sr x=one --picture a --crop 90,2,30,4', '--crop 90,2,30,4: .* a.*100 .*80 '),
    ('--sr x=small --picture a', 'small/a.png is 40x50, HR/a.png is 81x102'),
    ('--sr x=one --sr y=HR --picture a', 'HR/a.png is 81x102, one/a_x4.png is 80x100'),
    ('--sr x=other', '--sr x=other: .* HR$'),
    ('--sr x=one --output x.gif', '--output x.gif: .*.png, .pdf, .svg'),
    ('--sr x=one --scale 0', '--scale 0: .* 1$'),
    ('--sr x=HR --picture a --scale 41', r'^sr_jax: a: .*\b41\b.*102x81')])
def test_refused_arguments(call, folders, picture, arguments, pattern):
  images.write_image(folders / 'small' / 'a.png', picture(40, 50))
  images.write_image(folders / 'other' / 'c.png', picture(40, 50))
  output = [] if '--output' in arguments else ['--output', 'figure.png']
  status, _, err = call(cli.main, 'compare', '--hr', 'HR', '--lpips', 'none', *arguments.split(),
                        *output)
  assert status == 1
  assert re.search(pattern, err.strip())
  assert err.count('\n') == 1
  assert not (folders / 'figure.png').exists()


def test_an_original_is_accepted_as_a_result(call, folders):
  status, _, _ = call(cli.main, 'compare', '--hr', 'HR', '--lpips', 'none', '--sr', 'x=HR/a.png',
                      '--output', 'figure.png')
  assert status == 0
