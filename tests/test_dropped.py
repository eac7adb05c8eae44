"""The words for what files lose."""

from sr_jax.images import dropped


def test_a_summary_has_a_line_for_each_note_with_counts_and_at_most_ten_names() -> None:
  notes = {f'{index:02}.png': [dropped.ALPHA] * 2 for index in range(13)}
  notes |= {'deep.tif': [dropped.bits(16, 8), dropped.ALPHA], 'plain.jpg': []}
  alpha, depth = dropped.summary(notes)
  assert alpha.startswith(f'{dropped.ALPHA}: 14 of 15 ')
  assert '00.png' in alpha
  assert '09.png' in alpha
  assert '10.png' not in alpha
  assert ' 4 more' in alpha
  assert depth.startswith('16 bits reduced to 8: 1 of 15 ')
  assert 'deep.tif' in depth
  assert dropped.summary({'plain.jpg': []}) == []


def test_notes_name_their_values() -> None:
  assert '10' in dropped.bits(10, 8)
  assert 'gAMA 1 ' in dropped.color_tag('gAMA', '1')
  assert '2 of 5' in dropped.channels(2, 5)
  assert '12 pages' in dropped.frames(12, 'pages')
