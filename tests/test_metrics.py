"""Figures of merit against definitions, scikit-image and published values."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

from sr_jax import evaluate, images, metrics, score
from sr_jax.errors import InputError


def test_psnr_by_hand_and_by_scikit_image(picture):
  a, b = picture(20, 30, 0), picture(20, 30, 1)
  assert metrics.psnr(a, b) == pytest.approx(peak_signal_noise_ratio(a, b))
  assert metrics.psnr(np.zeros((4, 4)), np.full((4, 4), 255.0)) == 0
  assert metrics.psnr(a, a) == float('inf')
  assert metrics.psnr(a, b) == metrics.psnr(b, a)


def test_border_is_left_out(picture):
  a = picture(20, 30)
  b = a.copy()
  b[:3], b[-3:], b[:, :3], b[:, -3:] = 0, 0, 0, 0
  assert metrics.psnr(a, b) < 30
  assert metrics.psnr(a, b, 3) == float('inf')
  with pytest.raises(ValueError, match='border of 10'):
    metrics.psnr(a, b, 10)
  with pytest.raises(ValueError, match='different shapes'):
    metrics.psnr(a, b[1:])


def test_luma_psnr_of_colour_and_grey():
  hr = np.zeros((12, 12, 3), np.uint8)
  sr = hr.copy()
  sr[..., 1] = 255  # green alone moves luma by 128.553
  assert metrics.psnr_y(sr, hr, 2) == pytest.approx(20 * np.log10(255 / 128.553))
  # A grey picture is scored on its channel: 255 levels, not luma's 219.
  assert metrics.psnr_y(sr[..., 1:2], hr[..., :1], 2) == 0


def test_a_published_networks_figure(assets):
  scores = [metrics.psnr_y(images.read_image(path),
                           images.read_image(assets / 'Set5_RCAN_x4' / 'hr' / path.name), 4)
            for path in sorted((assets / 'Set5_RCAN_x4' / 'sr').iterdir())]
  assert len(scores) == 5
  assert np.mean(scores) == pytest.approx(32.634, abs=5e-4)


@pytest.mark.parametrize(('name', 'scale', 'expected'), [
    ('Set5', 2, 33.674), ('Set5', 3, 30.405), ('Set5', 4, 28.430),
    ('Set14', 2, 30.232), ('Set14', 3, 27.539), ('Set14', 4, 25.997)])
def test_bicubic_has_the_reference_figures(assets, name, scale, expected):
  scores = evaluate.score_set(evaluate.read_set(str(assets / name), scale),
                              lambda lr: evaluate.bicubic(lr, scale),
                              score.make_scorer(scale, 'none'))
  assert score.mean(scores)['psnr_y'] == pytest.approx(expected, abs=2e-3)


def test_lpips_of_the_authors_example(assets):
  reference, *others = (images.read_image(assets / 'lpips_ref' / f'ex_{name}.png')
                        for name in ('ref', 'p0', 'p1'))
  scorer = score.make_scorer(4, 'alex')
  for picture, expected in zip(others, (0.722, 0.138), strict=True):
    assert scorer(picture, reference)['lpips_alex'] == pytest.approx(expected, abs=5e-4)
  assert scorer(reference, reference)['lpips_alex'] == pytest.approx(0, abs=1e-9)


def test_lpips_skips_what_is_too_small(picture):
  small = picture(31, 40)
  assert set(score.make_scorer(2, 'alex')(small, small)) == {'psnr_y'}


def test_table_and_mean():
  columns = {'bicubic': {'a': {'psnr_y': 20.0, 'lpips_alex': 0.5}, 'b': {'psnr_y': 30.0}},
             'model': {'a': {'psnr_y': 21.0, 'lpips_alex': 0.4}, 'b': {'psnr_y': 32.0}}}
  assert score.mean(columns['model']) == {'psnr_y': 26.5, 'lpips_alex': 0.4}
  lines = score.table(columns).splitlines()
  assert lines[0].split() == ['picture', 'bicubic', 'psnr_y', 'bicubic', 'lpips_alex', 'model',
                              'psnr_y', 'model', 'lpips_alex']
  assert lines[2].split() == ['b', '30.000', '32.000']
  assert lines[-1].split() == ['mean', '25.000', '0.5000', '26.500', '0.4000']
  assert len({len(line.rstrip()) for line in (lines[0], lines[1], lines[-1])}) == 1


def test_sets_in_both_layouts(tmp_path, picture):
  hr = picture(30, 40)
  images.write_image(tmp_path / 'plain' / 'a.png', hr)
  pair, = evaluate.read_set(str(tmp_path / 'plain'), 4)
  assert pair.name == 'a'
  assert pair.hr.shape == (28, 40, 3)
  assert pair.lr.shape == (7, 10, 3)
  images.write_image(tmp_path / 'set' / 'HR_x4' / 'a.png', pair.hr)
  images.write_image(tmp_path / 'set' / 'LRbicx4' / 'a.png', 255 - pair.lr)
  given, = evaluate.read_set(str(tmp_path / 'set'), 4)
  np.testing.assert_array_equal(given.lr, 255 - pair.lr)  # the set's own LR, not ours
  images.write_image(tmp_path / 'set' / 'LRbicx4' / 'a.png', pair.lr[1:])
  with pytest.raises(InputError, match=r'a\.png.*expected 4 times'):
    list(evaluate.read_set(str(tmp_path / 'set'), 4))
  images.write_image(tmp_path / 'plain' / 'a.png', hr[:8])
  with pytest.raises(InputError, match=r'a\.png: 8x40 is too small'):
    list(evaluate.read_set(str(tmp_path / 'plain'), 4))
  images.write_image(tmp_path / 'set' / 'HR_x4' / 'a.png', pair.hr[:8])
  images.write_image(tmp_path / 'set' / 'LRbicx4' / 'a.png', pair.lr[:2])
  with pytest.raises(InputError, match=r'a\.png: 8x40 is too small'):
    list(evaluate.read_set(str(tmp_path / 'set'), 4))


def test_names_tell_pictures_apart(tmp_path, picture):
  for name in ('a/1.png', 'b/1.png', 'c.png', 'c.bmp'):
    images.write_image(tmp_path / name, picture(20, 20))
  assert [pair.name for pair in evaluate.read_set(str(tmp_path), 2)] == ['a/1', 'b/1', 'c.bmp',
                                                                         'c.png']


def test_a_set_without_this_scale_is_refused(tmp_path, picture):
  for name in ('HR_x2', 'HR_x3', 'LRbicx2', 'LRbicx3'):
    images.write_image(tmp_path / name / 'a.png', picture(36, 36))
  with pytest.raises(InputError, match='for scale 2, 3, not 4'):
    list(evaluate.read_set(str(tmp_path), 4))


def test_grey_stays_grey(picture):
  from sr_jax.models import MSRRESNET
  model = MSRRESNET(features=4, blocks=1, scale=2)
  lr = picture(9, 8)
  import jax
  variables = model.init(jax.random.key(0), np.zeros((1, 8, 8, 3)))
  upscale = evaluate.make_upscaler(model)
  assert upscale(variables, lr).shape == (18, 16, 3)
  grey = upscale(variables, lr[..., :1])
  assert grey.shape == (18, 16, 1)
  assert grey.dtype == np.uint8
