"""What the result of an image or video file lacks of the file, in the same words everywhere.

A command keeps what its result can store and reports the rest as short notes: `upscale` and
`resize` name the file in front of its notes, and commands that read many files print a `summary`.
Commands that only use samples (score, evaluate, training) report what changes the samples or what
they mean: bit depth, alpha, colour, channels, frames. They do not report EXIF, XMP, text and the
resolution, which they have no use for.
"""

from collections.abc import Mapping, Sequence

from sr_jax.errors import listed

ALPHA = 'alpha composited over white'
ALPHA_IGNORED = 'alpha ignored'  # colours are used as they are stored
ICC = 'ICC profile dropped'
EXIF = 'EXIF dropped'
DAMAGED_EXIF = 'damaged EXIF dropped'
XMP = 'XMP dropped'
RESOLUTION = 'resolution dropped'
TEXT = 'PNG text dropped'
COMMENT = 'comment dropped'
IPTC = 'IPTC dropped'
CLIPPED = 'values outside 0 to 1 clipped'

# Of videos.
INTERLACED = 'interlaced frames deinterlaced'
CHAPTERS = 'chapters dropped'
SUBTITLES = 'subtitles dropped'
ATTACHMENTS = 'attachments dropped'
DATA_STREAMS = 'data streams dropped'
METADATA = 'metadata dropped'
KEPT_INTERLACED = 'interlaced frames used as they are'
UNDECODED_ALPHA = 'alpha dropped (no decoder for it)'
FURTHER_VIDEOS = 'further video streams dropped'
COVER = 'cover image dropped'
CAPTIONS = 'closed captions dropped'
HDR_METADATA = 'HDR metadata dropped'
PROJECTION = '360-degree or 3D tags dropped'


def bits(before: int, after: int) -> str:
  """Returns the note of a reduced bit depth: '16 bits reduced to 8'."""
  return f'{before} bits reduced to {after}'


def converted(space: str) -> str:
  """Returns the note of samples in another colour space, such as 'CMYK' or 'Lab'."""
  return f'{space} converted to RGB'


def color_tag(name: str, value: str = '') -> str:
  """Returns the note of a colour tag other than an ICC profile.

  Args:
    name: such as 'gAMA', 'cHRM', 'cICP/nclx' or the name of a TIFF tag.
    value: of the tag, such as '1' for gAMA.
  """
  return f'{name}{f" {value}" if value else ""} dropped'


def channels(count: int, total: int) -> str:
  """Returns the note of channels other than colour and alpha: '2 of 5 channels dropped'."""
  return f'{count} of {total} channels dropped'


def frames(count: int | None, unit: str = 'frames') -> str:
  """Returns the note of a file of which the first frame or page is used.

  Args:
    count: the number of frames in the file; None if it is not known.
    unit: 'frames', 'pages' or 'images'.
  """
  number = 'several' if count is None else count
  return f'only the first of {number} {unit} used'


def resized(count: int) -> str:
  """Returns the note of a video's frames whose size differs from that of the first frame."""
  return f'{count} frames of another size resized'


def metadata(keys: Sequence[str]) -> str:
  """Returns the note of metadata: 'metadata dropped (director, make)'."""
  return f'{METADATA} ({listed(keys)})'


def summary(notes: Mapping[str, Sequence[str]], unit: str = 'images') -> list[str]:
  """Returns a line for each note: 'alpha composited over white: 2 of 800 images (a.png, b.png)'.

  Args:
    notes: the notes of every file by its name, which are empty for files that lose nothing.
    unit: what the files are.
  """
  names: dict[str, list[str]] = {}
  for name, notes_of_file in notes.items():
    for note in dict.fromkeys(notes_of_file):
      names.setdefault(note, []).append(name)
  return [f'{note}: {len(affected)} of {len(notes)} {unit} ({listed(affected)})'
          for note, affected in names.items()]
