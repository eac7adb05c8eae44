"""What users read: no sentence changes unseen, and none goes back to words that nobody searches."""

import re

import pytest

from tests import messages

# Words that this project's texts once used in place of the field's own.
UNWANTED = (
    r'can not\b', r'goes on\b', r'begins? anew', r'left out', r'no finite numbers', r'no number',
    r'looked into', r'(?<!--)(?<!eval\.)\bpictures?\b', r'\benlarged?\b', r'\bclips?\b',
    r'stands? still', r'right answers', r'\bhas won\b')


def test_the_listing_is_current():
  assert messages.listing() == messages.LISTING.read_text(encoding='utf-8'), (
      'wording has changed: read the difference, then run python -m tests.messages --write')


@pytest.mark.parametrize('word', UNWANTED)
def test_plain_words(word):
  lines = messages.LISTING.read_text(encoding='utf-8').splitlines()  # which is current
  texts = [re.sub(r'\{[^{}]*\}', '{}', line) for line in lines if not line.startswith('# ')]
  assert not [text for text in texts if re.search(word, text)]
