"""The keys of data.degrade: which degradations make LR, and the fields of their stages.

A field whose default is None has the value of the chain that `data.degrade.name` names, or for a
custom chain that of the stage in `chains.STAGES`. sr_jax/data/degradations documents them.
"""

from sr_jax.experiment.key import Key

SHARE, POSITIVE, NOT_NEGATIVE, QUALITY = '[0, 1]', '(0, inf)', '[0, inf)', '[1, 100]'
METHODS = ('area', 'bilinear', 'bicubic', 'nearest', 'lanczos')
# As in data/degradations/chains.py, which imports JAX.
CHAINS = ('realesrgan', 'bsrgan', 'jpeg', 'noise', 'blur')
STAGES = ('blur', 'resize', 'noise', 'jpeg', 'blur2', 'resize2', 'noise2', 'jpeg2', 'final',
          'reduce', 'sharpen', 'impulse')

CHAIN = (
    Key('data.degrade.name', str, 'none',
        "Degradations that make LR of HR during training, anew for each crop: 'realesrgan' (two "
        "orders of blur, resizing, noise and JPEG), 'bsrgan' (in random order), 'jpeg', 'noise', "
        "'blur', or 'custom', the stages of `data.degrade.stages`. 'none' uses bicubic LR, from "
        'which no network learns to remove noise or JPEG artefacts, or LR files of the data.',
        choices=('none', *CHAINS, 'custom')),
    Key('data.degrade.stages', tuple[str, ...], (),
        "The stages of 'custom' in their order, such as ('blur', 'reduce', 'noise', 'jpeg'). "
        "'reduce' makes the image as small as LR; 'final' does the same, before or after JPEG.",
        choices=STAGES),
    Key('data.degrade.margin', int, None,
        'HR pixels on each side of a crop that are degraded with it and then cut off, a multiple '
        'of `scale`. Images must have sides of `hr_patch` and two margins. By default 72 for '
        'realesrgan, bsrgan and custom, 16 for the others, rounded up.', NOT_NEGATIVE),
    Key('data.degrade.sharpen_hr', float, None,
        'Weight of an unsharp mask of HR, of which LR is then made and with which the pixel and '
        'perceptual terms compare SR; the discriminator sees HR as it is. By default 0.5 for '
        'realesrgan, 0 for the others.', NOT_NEGATIVE),
)


def _range(name: str, meaning: str, limits: str, kind: type = float) -> Key:
  return Key(name, tuple[kind, ...], None, meaning, limits, (2,), ordered=True)


PROBABILITY = Key('probability', float, None,
                  'Probability that the stage is applied to an image.', SHARE)
BLUR = (
    PROBABILITY,
    Key('kinds', tuple[float, ...], None,
        'Relative frequencies of six kernels: isotropic (round) and anisotropic (stretched) '
        'Gaussian, isotropic and anisotropic generalised Gaussian, isotropic and anisotropic '
        'plateau.', NOT_NEGATIVE, (6,)),
    Key('sinc', float, None,
        'Probability of a sinc kernel instead of these, which adds ringing along edges.', SHARE),
    _range('size', 'Smallest and largest side of the kernels in pixels; odd numbers.', '[3, 51]',
           int),
    _range('sigma', 'Smallest and largest standard deviation of the kernels in pixels.',
           '(0, 50]'),
    _range('beta', 'Smallest and largest exponent of the generalised Gaussians: 1 is a Gaussian, '
           'below it the peak is sharper, above it flatter.', '(0, 10]'),
    _range('plateau', 'Smallest and largest exponent of the plateaus; the larger it is, the '
           'flatter is the top and the steeper are the sides.', '(0, 10]'))
RESIZE = (
    Key('directions', tuple[float, ...], None,
        'Relative frequencies of enlarging, reducing and keeping the size.', NOT_NEGATIVE, (3,)),
    _range('factor', 'Smallest and largest factor: images that grow take those above 1, images '
           'that shrink those below 1.', '(0, 4]'),
    Key('methods', tuple[str, ...], None, 'The methods of resizing, of equal probability.',
        choices=METHODS),
    Key('antialias', bool, None,
        'Whether bilinear, bicubic and lanczos are antialiased where they reduce; without it fine '
        'detail becomes false patterns.'),
    Key('by_factor', bool, None,
        'Whether samples lie where the factor puts them although the size is rounded down, which '
        'moves images by a quarter of a pixel on average; only realesrgan does so, as published.'),
    Key('of_lr', bool, None,
        'Whether the factor is relative to the size of LR instead of the current size.'),
    Key('inverse', bool, None,
        'Whether 1 / factor is uniform instead of the factor, so that images become small more '
        'often.'))
NOISE = (
    PROBABILITY,
    Key('gaussian', float, None, 'Probability of Gaussian noise; otherwise it is Poisson noise.',
        SHARE),
    _range('sigma', 'Smallest and largest standard deviation of Gaussian noise, in levels of 255.',
           '[0, 255]'),
    _range('poisson', 'Smallest and largest factor of Poisson noise, which grows with brightness '
           'as that of cameras does; with 1 white has as many photons as the image has levels.',
           '[0, 100]'),
    Key('grey', float, None, 'Probability that noise is the same in R, G and B.', SHARE),
    Key('correlated', float, None,
        'Probability that Gaussian noise is correlated between R, G and B.', SHARE))
QUALITIES = (
    _range('quality', 'Smallest and largest quality of JPEG; the lower, the more artefacts.',
           QUALITY, int),
    Key('subsampling', float, None,
        'Probability that JPEG stores chroma at half the resolution (4:2:0); otherwise 4:4:4.',
        SHARE))
JPEG = (PROBABILITY, *QUALITIES)
FINAL = (
    *QUALITIES,
    Key('sinc', float, None, 'Probability of a sinc filter after the reduction to LR.', SHARE),
    _range('size', 'Smallest and largest side of the sinc filter in pixels; odd numbers.',
           '[3, 51]', int),
    Key('methods', tuple[str, ...], None, 'The methods of resizing, of equal probability.',
        choices=METHODS))
REDUCE = tuple(key for key in RESIZE if key.name in ('methods', 'antialias'))
SHARPEN = (PROBABILITY, _range('weight', 'Smallest and largest weight of an unsharp mask of the '
                               'image at this place in the chain.', '[0, 10]'))
IMPULSE = (
    PROBABILITY,
    _range('salt', 'Smallest and largest share of pixels that are set to black or white.', SHARE),
    _range('dead', 'Smallest and largest share of pixels of which one channel is set to 0 or 1.',
           SHARE))
FIELDS = {'blur': BLUR, 'resize': RESIZE, 'noise': NOISE, 'jpeg': JPEG, 'blur2': BLUR,
          'resize2': RESIZE, 'noise2': NOISE, 'jpeg2': JPEG, 'final': FINAL, 'reduce': REDUCE,
          'sharpen': SHARPEN, 'impulse': IMPULSE}
STAGE_KEYS = tuple(key._replace(name=f'data.degrade.{stage}.{key.name}')
                   for stage, keys in FIELDS.items() for key in keys)
DEGRADE = (*CHAIN, *STAGE_KEYS)
