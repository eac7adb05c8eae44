"""Images that are joined side by side are taken apart again."""

import numpy as np
import pytest

from sr_jax.images import montage


@pytest.mark.parametrize('count', [1, 2, 4])
def test_splitting_is_the_inverse_of_joining(picture, count):
  joined = [picture(9, 11, seed) for seed in range(count)]
  row = montage.side_by_side(joined)
  assert row.shape == (9, 11 * count + 4 * (count - 1), 3)
  for image, expected in zip(montage.split_side_by_side(row, count), joined, strict=True):
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize('width', [4 * 11 + 11, 4 * 11 + 13, 12, 3])
def test_a_width_that_no_montage_has_is_refused(width):
  with pytest.raises(ValueError, match=f'4 images.*{width} pixels'):
    montage.split_side_by_side(np.zeros((9, width, 3), np.uint8), 4)
