"""What the name of a folder says about its images: HR or LR, for which scale, of which set."""

import re
from typing import NamedTuple

# Words that stand for HR or LR wherever they are a part of a name: 'DIV2K_train_HR', 'LR_unknown'.
STRONG = {'hr': 'HR', 'hq': 'HR', 'gt': 'HR', 'hires': 'HR', 'hrs': 'HR', 'gts': 'HR',
          'lr': 'LR', 'lq': 'LR', 'lores': 'LR', 'lrs': 'LR', 'lqs': 'LR'}
# Words that do so only as the entire name, since they occur in others: 'low_light', 'high_tide'.
WHOLE = {'high': 'HR', 'original': 'HR', 'originals': 'HR', 'low': 'LR'}
# Words that are not used to form pairs, but make a folder next to one of the other kind suspicious.
HINTS = {'target': 'HR', 'targets': 'HR', 'image': 'HR', 'images': 'HR', 'clean': 'HR',
         'sharp': 'HR', 'label': 'HR', 'labels': 'HR', 'truth': 'HR', 'reference': 'HR',
         'output': 'HR', 'outputs': 'HR', 'hd': 'HR',
         'input': 'LR', 'inputs': 'LR', 'degraded': 'LR', 'blur': 'LR', 'blurred': 'LR',
         'blurry': 'LR', 'noisy': 'LR', 'downscaled': 'LR', 'downsampled': 'LR', 'small': 'LR',
         'compressed': 'LR', 'thumbs': 'LR', 'thumbnail': 'LR', 'thumbnails': 'LR', 'sd': 'LR',
         'ld': 'LR'}
# (LR, HR): names that differ in these alone look like a pair, whatever else is in them.
COUNTERPARTS = (('lr', 'hr'), ('lq', 'hq'), ('lq', 'gt'), ('lr', 'gt'), ('lq', 'hr'),
                ('low', 'high'), ('input', 'target'), ('input', 'output'), ('input', 'gt'))
DEGRADATIONS = ('bicubic', 'bic', 'bi', 'bd', 'dn', 'unknown', 'mild', 'difficult', 'wild')
FILLERS = ('image', 'images', 'img', 'imgs', 'pictures', 'photos', 'frames', 'quality', 'data')
MAX_SCALE = 16  # a larger number in a name is a size or a year

# 'LRbicx4', 'GTmod12', 'HR_x4' without its separator: a word with what is glued to it.
_GLUED = re.compile(r'(hr|hq|gt|hires|lr|lq|lores)(mod\d+)?(bicubic|bic|bi|bd|dn)?(x?\d+|\d+x)?')
_GLUED_SCALE = re.compile(r'(?:bicubic|bic|bi|bd|dn)(x\d+|\d+x)')  # BIx4
_GLUED_SIZE = re.compile(r'(hr|hq|lr|lq)(\d{2,4})')  # hr256; 'gt500' is a car
_SCALE = re.compile(r'x(\d+)|(\d+)x')
_RESOLUTION = re.compile(r'(high|low)[-_. ]?(?:res(?:olution)?)(?![a-z])')


class Role(NamedTuple):
  """What the name of a folder says.

  Attributes:
    kind: 'HR', 'LR' or '' (only a scale or a degradation, such as 'X4' or 'bicubic').
    strength: 'strong' and 'whole' form pairs, 'hint' makes a folder suspicious only.
    group: the rest of the name, in lower case and sorted: folders of one pair have the same.
    scale: the scale in the name, or None.
    modulus: whether the name says that HR is cropped to a multiple of a number ('GTmod12').
  """

  kind: str
  strength: str
  group: tuple[str, ...] = ()
  scale: int | None = None
  modulus: bool = False


def role_of(name: str) -> Role | None:
  """Returns what the name of a folder says, or None if it says nothing about HR and LR.

  The case of letters does not matter.
  """
  words, group, scale, number, degraded, modulus = [], [], None, None, False, False
  for token in _tokens(name):
    glued = _GLUED.fullmatch(token)
    if glued and (glued[4] is None or _scale(glued[4], glued[1])):
      words.append(glued[1])
      scale = scale or _scale(glued[4] or '', glued[1])
      modulus, degraded = modulus or bool(glued[2]), degraded or bool(glued[3])
    elif (sized := _GLUED_SIZE.fullmatch(token)) and int(sized[2]) % 8 == 0:
      words.append(sized[1])
    elif match := _GLUED_SCALE.fullmatch(token):
      scale, degraded = scale or _scale(match[1], ''), True
    elif _scale(token, ''):
      scale = scale or _scale(token, '')
    elif token in DEGRADATIONS:
      degraded = True
    elif re.fullmatch(r'mod\d+', token):
      modulus = True
    elif token in WHOLE or token in HINTS or token in STRONG:
      words.append(token)
    elif token.isdecimal():  # 'LR_4', 'lr_16', 'hr_128'
      number = token
    elif token not in FILLERS:
      group.append(token)
  if number and words:
    scale = scale or _scale(number, words[0])
  elif number:
    group.append(number)
  return _role(words, tuple(sorted(group)), scale, degraded, modulus)


def _role(words: list[str], group: tuple[str, ...], scale: int | None, degraded: bool,
          modulus: bool) -> Role | None:
  """Returns the role that the words and the rest of a name give together."""
  for strength, table in (('strong', STRONG), ('whole', WHOLE), ('hint', HINTS)):
    found = [word for word in words if word in table]
    kinds = {table[word] for word in found if word not in FILLERS or len(words) == 1}
    if len(kinds) > 1:  # 'LR_to_HR'
      return None
    if kinds:
      strength = 'hint' if strength == 'whole' and group else strength  # 'low_light'
      return Role(kinds.pop(), strength, group, scale, modulus)
  if not words and (scale or degraded):
    return Role('', 'hint', group, scale)
  return None


def _tokens(name: str) -> list[str]:
  """Splits 'DIV2K_trainHR' to ['div2k', 'train', 'hr']."""
  name = re.sub(r'(?<=[a-z])(?=(?:HR|HQ|LR|GT|LQ)(?![a-z]))', '_', name)  # trainHR
  name = re.sub(r'(?<![A-Za-z])(HR|HQ|LR|GT|LQ)(?=[a-z]{3})(?!mod|bic)', r'\1_', name)  # HRtrain
  name = _RESOLUTION.sub(lambda match: {'high': 'hires', 'low': 'lores'}[match[1]] + '_',
                         name.lower())
  name = re.sub(r'ground[-_. ]?truth', 'gt_', name)
  return [token for token in re.split(r'[^a-z0-9]+', name) if token]


def _scale(text: str, word: str) -> int | None:
  """Returns the scale of 'x4' or '4x'; a plain number counts after LR alone, and only 2, 3, 4, 8.

  'gt3' is a car and 'lr_16' or 'hr_128' states a size.
  """
  match = _SCALE.fullmatch(text)
  if match:
    number = int(match[1] or match[2])
    return number if 1 <= number <= MAX_SCALE else None
  if word.startswith(('lr', 'lq', 'lores')) and text in ('2', '3', '4', '8'):
    return int(text)
  return None
