"""Makes tfds.zip: what TFDS's own builders make of a few generated images.

  pip install tensorflow-cpu importlib_resources && python tests/golden/make_tfds.py [FOLDER]

It contains div2k/bicubic_x4, coco/2017 and celeb_a as array_record, with all splits. The builders
find generated images where their downloads would be; nothing else is changed. It is a zip file
because an array_record file has 128 KiB, most of them zeros.
"""

import json
import pathlib
import sys
import tempfile
import zipfile

import numpy as np
from PIL import Image

HERE = pathlib.Path(__file__).parent
NAMES = ('div2k/bicubic_x4', 'coco/2017', 'celeb_a')
SPLITS = ('train', 'train', 'train', 'validation', 'test')  # of the five images


def image(height: int, width: int, seed: int, channels: int = 3) -> np.ndarray:
  """Returns uint8 [H, W, channels]: waves that are so smooth that JPEG changes them little."""
  a, b, c = np.random.default_rng(seed).uniform(0.02, 0.1, 3)
  y, x, channel = np.mgrid[:height, :width, :channels]
  return np.uint8(127.5 + 120 * np.sin(a * x + b * y + 50 * c * channel))


def pictures() -> dict[str, np.ndarray]:
  """Returns images by the path where a builder looks for them; the largest is 218x178."""
  found = {}
  for seed, split in enumerate(SPLITS):
    small = (40 + 8 * seed, 80 - 4 * seed)
    if split != 'test':  # the test images of DIV2K are not public
      div2k, hr = split.removesuffix('ation'), image(*small, seed)
      found[f'{div2k}_hr_url/DIV2K_{div2k}_HR/{seed:04}.png'] = hr
      found[f'{div2k}_lr_url/{seed:04}x4.png'] = hr[::4, ::4]
    coco = split.removesuffix('idation') + '2017'
    found[f'{split}_images/{coco}/{seed:012}.jpg'] = image(*small, seed, 1 if seed == 1 else 3)
    found[f'img_align_celeba/{seed:06}.jpg'] = image(218, 178, seed)
  return found


def texts() -> dict[str, str]:
  """Returns the annotations of COCO and CelebA: a box in each image, invented faces."""
  from tensorflow_datasets.datasets.celeb_a import celeb_a_dataset_builder as celeb_a
  found = {}
  for split in set(SPLITS):
    coco = split.removesuffix('idation') + '2017'
    seeds = [seed for seed, other in enumerate(SPLITS) if other == split]
    kind = 'image_info' if split == 'test' else 'instances'
    found[f'{split}_annotations/annotations/{kind}_{coco}.json'] = json.dumps({
        'categories': [{'id': number, 'name': f'thing {number}'} for number in range(80)],
        'images': [{'id': seed, 'file_name': f'{seed:012}.jpg', 'height': 40 + 8 * seed,
                    'width': 80 - 4 * seed} for seed in seeds],
        'annotations': [{'id': seed, 'image_id': seed, 'category_id': seed, 'iscrowd': 0,
                         'bbox': [4, 4, 20, 20], 'area': 400} for seed in seeds]})
  for name, headings in (('list_attr_celeba', celeb_a.ATTR_HEADINGS),
                         ('landmarks_celeba', celeb_a.LANDMARK_HEADINGS)):
    found[name] = ''.join(f'{line}\n' for line in (len(SPLITS), ' '.join(headings), *(
        f'{seed:06}.jpg ' + '1 ' * len(headings) for seed in range(len(SPLITS)))))
  order = ('train', 'validation', 'test')
  found['list_eval_partition'] = ''.join(
      f'{seed:06}.jpg {order.index(split)}\n' for seed, split in enumerate(SPLITS))
  found['identity_celeba'] = found['list_eval_partition']
  return found


def replace_downloads(folder: pathlib.Path) -> None:
  """Fills `folder` and makes TFDS use its files, in this process, instead of downloads."""
  import tensorflow_datasets as tfds
  for name, array in pictures().items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.squeeze()).save(folder / name)
  for name, text in texts().items():
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
  manager = tfds.download.DownloadManager
  manager.download = manager.download_and_extract = lambda self, urls: {
      name: folder / name for name in urls}
  manager.iter_archive = lambda self, archive: (
      (path.name, path.open('rb')) for path in sorted(archive.iterdir()))


def main(folder: pathlib.Path = HERE) -> None:
  import tensorflow_datasets as tfds
  with tempfile.TemporaryDirectory() as temporary:
    data = pathlib.Path(temporary, 'data')
    replace_downloads(pathlib.Path(temporary, 'downloads'))
    for name in NAMES:
      tfds.builder(name, file_format='array_record', data_dir=data).download_and_prepare()
    with zipfile.ZipFile(folder / 'tfds.zip', 'w', zipfile.ZIP_DEFLATED) as file:
      for path in sorted(path for path in data.rglob('*') if path.is_file()):
        file.write(path, path.relative_to(data))


if __name__ == '__main__':
  main(*map(pathlib.Path, sys.argv[1:2]))
