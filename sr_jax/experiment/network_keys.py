"""The keys of a config that are fields of the networks.

A field whose default is None has the default of its module; sr_jax/models documents the modules.
"""

from sr_jax.experiment.key import FIXED, FREE, Key

INITIALIZERS = ('xavier', 'xavier_normal', 'kaiming', 'kaiming_uniform', 'kaiming_0.1', 'lecun',
                'pytorch')
ACTIVATIONS = ('none', 'relu', 'leaky_relu', 'leaky_relu_0.2', 'prelu')
COUNT = '[1, inf)'

GENERATOR = (
    Key('generator.name', str, 'srresnet',
        "The generator's network: 'srresnet' is Ledig et al.'s, 'msrresnet' the same without "
        'BatchNorm.',
        choices=('srcnn', 'srresnet', 'msrresnet', 'edsr', 'rrdb', 'compact', 'plksr', 'realplksr',
                 'span', 'dat', 'swinir', 'hat'), own=True, change=FIXED),
    Key('generator.features', int, None, 'Number of channels between the layers.', COUNT,
        change=FIXED),
    Key('generator.blocks', int, None,
        'Number of residual blocks; of compact, number of convolutions; of dat, swinir and hat, '
        'number of transformer blocks in each group.', COUNT, change=FIXED),
    Key('generator.channels', int, None,
        '3 for RGB. With 1 the network upscales luma, and Cb and Cr are upscaled by bicubic.',
        choices=(1, 3), change=FIXED),
    Key('generator.upsample', str, None,
        "Not srcnn, edsr, compact, span: how features are upsampled, 'shuffle' (sub-pixel "
        "convolution), 'nearest' (then a convolution), 'transposed' (convolution) or 'direct' (one "
        "sub-pixel convolution for the entire scale); rrdb has 'nearest' and 'shuffle', dat "
        "'shuffle' and 'direct', plksr and realplksr 'shuffle' and 'dysample' (at positions that "
        "the features choose), swinir and hat 'shuffle', 'direct', 'nearest' and, at scale 1, "
        "'none' (the result is added to LR).",
        choices=('shuffle', 'nearest', 'transposed', 'direct', 'dysample', 'none'), change=FIXED),
    Key('generator.activation', str, None,
        'srresnet, msrresnet: activation outside the residual blocks; compact: of all layers; '
        "plksr, realplksr: of each block, 'gelu' or 'mish'.",
        choices=(*ACTIVATIONS, 'gelu', 'mish'), change=FIXED),
    Key('generator.remat', bool, None,
        'All but srcnn and compact: whether the blocks are computed again in the backward '
        'pass, which needs less GPU memory and about a third more time.', change=FREE),
    Key('generator.kernel', int, None,
        'srresnet, msrresnet: side of the first and last convolutions, in pixels; plksr, '
        'realplksr: side of the large kernels, an odd number.', COUNT, change=FIXED),
    Key('generator.batch_norm', bool, None,
        'srresnet, msrresnet: whether the blocks have BatchNorm.', change=FIXED),
    Key('generator.skip', str, None,
        'srresnet, msrresnet: what is added to the result, the features of the first convolution '
        'or the bilinear upscale of LR.', choices=('features', 'bilinear'), change=FIXED),
    Key('generator.output', str, None, 'srresnet, msrresnet: function of the last layer.',
        choices=('linear', 'tanh'), change=FIXED),
    Key('generator.block_activation', str, None,
        'srresnet, msrresnet: activation inside the residual blocks.', choices=ACTIVATIONS,
        change=FIXED),
    Key('generator.refine', bool, None,
        'srresnet, msrresnet: whether there is one more convolution at high resolution.',
        change=FIXED),
    Key('generator.residual_scale', float, None, "edsr: factor of each block's residual.",
        change=FIXED),
    Key('generator.mean', tuple[float, ...], None,
        'edsr, span: RGB in [0, 1] that is subtracted from LR, and in edsr added to SR.',
        change=FIXED),
    Key('generator.image_range', float, None,
        'edsr, span, swinir, hat: the value that white has inside the network.', change=FIXED),
    Key('generator.fused', bool, None,
        'span: whether each convolution is one 3x3 kernel, as in published ncnn files, instead of '
        'branches that are made into one.', change=FIXED),
    Key('generator.growth', int, None,
        'rrdb: channels that each convolution of a dense block adds.', COUNT, change=FIXED),
    Key('generator.unshuffle', int, None,
        'srresnet, msrresnet, edsr, rrdb, compact, plksr, realplksr, swinir, hat: factor by which '
        'LR is folded into channels first, which makes a network of scale 1 or 2 faster. Its '
        'product with `scale` is 1, 2, 3, 4, 8 or 16 (compact, plksr, realplksr: any).', COUNT,
        change=FIXED),
    Key('generator.inner_scale', int, None,
        'compact: scale of the network itself, if its result is resized to `scale`.',
        COUNT, change=FIXED),
    Key('generator.share', float, None,
        'plksr, realplksr: share of the channels on which the large kernels work.', '(0, 1]',
        change=FIXED),
    Key('generator.mixer', str, None,
        "plksr, realplksr: the two convolutions of each block, 'dccm' (3x3 and 3x3), 'ccm' (3x3 "
        "and 1x1) or 'iccm' (1x1 and 3x3).", choices=('dccm', 'ccm', 'iccm'), change=FIXED),
    Key('generator.gate', bool, None,
        "plksr, realplksr: whether each block's result is multiplied by a sigmoid of itself.",
        change=FIXED),
    Key('generator.norm', str, None,
        "plksr, realplksr: 'group' (GroupNorm over the whole image, after each block), 'layer' "
        "(LayerNorm over the channels, before it) or 'none'.",
        choices=('none', 'group', 'layer'), change=FIXED),
    Key('generator.norm_groups', int, None,
        'plksr, realplksr: number of groups of channels of the GroupNorm, which divides '
        '`features`.', COUNT, change=FIXED),
    Key('generator.widths', tuple[int, ...], None,
        'srcnn: number of channels of each hidden layer.', COUNT, change=FIXED),
    Key('generator.kernels', tuple[int, ...], None,
        'srcnn: sides of the convolutions in pixels, one more than `widths`.', COUNT,
        change=FIXED),
    Key('generator.luma_only', bool, None,
        'srcnn: whether only Y is processed; Cb and Cr are upscaled by bicubic.', change=FIXED),
    Key('generator.groups', int, None,
        'dat, swinir, hat: number of groups of transformer blocks.', COUNT, change=FIXED),
    Key('generator.heads', int, None,
        'dat, swinir, hat: attention heads of each block, a number that divides `features`; in dat '
        'an even one.', COUNT, change=FIXED),
    Key('generator.split_size', tuple[int, ...], None,
        'dat: sides of the windows of attention in pixels; half of the heads have windows of so '
        'many rows and columns, the others the reverse.', COUNT, change=FIXED),
    Key('generator.window', int, None,
        'swinir, hat: side of the windows of attention in pixels; evaluation may use another one.',
        '[2, inf)', change=FIXED),
    Key('generator.overlap', float, None,
        'hat: pixels by which the windows of keys are larger than those of queries in the last '
        'block of each group, in multiples of `window`; their product is an even number.', '[0, 1]',
        change=FIXED),
    Key('generator.compress', int, None,
        'hat: divisor of `features`, for the channels between the two convolutions of a block.',
        COUNT, change=FIXED),
    Key('generator.squeeze', int, None,
        'hat: divisor of `features`, for the channels inside the channel attention of a block.',
        COUNT, change=FIXED),
    Key('generator.conv_scale', float, None,
        'hat: factor of what the convolutions of a block add.', change=FIXED),
    Key('generator.position', str, None,
        "swinir, hat: how attention tells positions apart: 'bias' (the authors', a trained table), "
        "'rope_axial' (rotary embedding) and 'rope_mixed' (with trained frequencies), which need "
        "`features` / `heads` to be a multiple of 4, or 'none'.",
        choices=('bias', 'rope_axial', 'rope_mixed', 'none'), change=FIXED),
    Key('generator.stem', str, None,
        "swinir, hat: what computes the features of the first block, 'conv' (a 3x3 convolution) or "
        "the trunk of an 'edsr' or 'rrdb', whose weights `init_from` may name; "
        "`freeze='stem_trunk'` keeps them.", choices=('conv', 'edsr', 'rrdb'), change=FIXED),
    Key('generator.stem_blocks', int, None,
        "swinir, hat: number of blocks of a stem 'edsr' or 'rrdb', which need it.", COUNT,
        change=FIXED),
    Key('generator.stem_features', int, None,
        'swinir, hat: channels of such a stem; if they differ from `features`, a 1x1 convolution '
        'follows. RRDBNet adds half as many in each convolution.', COUNT, change=FIXED),
    Key('generator.drop_path', float, None,
        'dat, swinir, hat: probability in training with which the last block is skipped; it rises '
        'linearly from 0 at the first block.', '[0, 1)'),
    Key('generator.mlp_ratio', float, None,
        'dat, swinir, hat: hidden channels of the feed-forward networks, in multiples of '
        '`features`.',
        change=FIXED),
    Key('generator.residual_conv', str, None,
        "dat, swinir, hat: what ends each group, '1conv' (one convolution) or '3conv' (three, with "
        'fewer parameters).', choices=('1conv', '3conv'), change=FIXED),
    Key('generator.init', str, None,
        'Initialiser of the kernels (of rrdb, of those in the dense blocks; of dat, swinir and '
        'hat, of the convolutions).',
        choices=INITIALIZERS, change=FIXED),
)

DISCRIMINATOR = (
    Key('discriminator.name', str, 'none',
        "The discriminator's network; one other than 'none' needs loss.adversarial.weight above "
        "0. 'vgg_style' (SRGAN) judges whole crops, 'unet' (Real-ESRGAN, with spectral "
        'normalisation) every pixel; it needs an `hr_patch` that is a multiple of 8.',
        choices=('none', 'vgg_style', 'unet'), own=True, change=FIXED),
    Key('discriminator.widths', tuple[int, ...], None,
        'vgg_style: number of channels of each pair of convolutions.', COUNT, change=FIXED),
    Key('discriminator.batch_norm', bool, None, 'vgg_style: whether it has BatchNorm.',
        change=FIXED),
    Key('discriminator.head', str, None,
        "vgg_style: the last layers; 'dense' is for crops of one size, 'conv' for any size.",
        choices=('dense', 'conv'), change=FIXED),
    Key('discriminator.hidden', int, None,
        "vgg_style: number of channels of the head's hidden layer.", COUNT, change=FIXED),
    Key('discriminator.features', int, None,
        'unet: number of channels at full resolution; 8 times as many at an eighth of it.', COUNT,
        change=FIXED),
    Key('discriminator.skip', bool, None,
        'unet: whether features on the way down are added to those on the way up.',
        change=FIXED),
    Key('discriminator.init', str, None, 'Initialiser of the kernels.', choices=INITIALIZERS,
        change=FIXED),
)
