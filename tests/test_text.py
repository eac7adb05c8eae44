"""Bytes and seconds as they are printed."""

import pytest
import tqdm

from sr_jax.system.text import format_bytes, format_seconds


@pytest.mark.parametrize(('count', 'unit', 'text'), [
    (0, 'MiB', '0 MiB'), (273.4 * 2**20, 'MiB', '273 MiB'), (4_156 * 2**20, 'MiB', '4,156 MiB'),
    (2_500_000_000, 'GB', '2.5 GB'),
    (3_530_603_713, 'MB', '3,531 MB'), (3 * 2**29, 'GiB', '1.5 GiB')])
def test_bytes_have_their_unit_and_its_digits(count, unit, text):
  assert format_bytes(count, unit) == text


def test_mebibytes_are_the_default():
  assert format_bytes(2**20) == '1 MiB'


@pytest.mark.parametrize('seconds', [0, 5.9, 59.99, 60, 3_599.9, 3_600, 86_399])
def test_seconds_are_printed_as_by_tqdm(seconds):
  assert format_seconds(seconds) == tqdm.tqdm.format_interval(seconds)


def test_hours_can_be_requested_for_short_durations():
  assert [format_seconds(seconds, always_hours=True) for seconds in (65, 3_665)] == [
      '0:01:05', '1:01:05']


def test_days_are_counted():
  assert [format_seconds(seconds) for seconds in (86_400, 183_845, 32_757_686)] == [
      '1 d 00:00:00', '2 d 03:04:05', '379 d 03:21:26']
