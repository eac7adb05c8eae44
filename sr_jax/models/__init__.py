"""Networks: flax.linen modules, pure functions of (variables, x)."""

from sr_jax.models.discriminator import Discriminator
from sr_jax.models.srcnn import SRCNN
from sr_jax.models.srresnet import MSRRESNET, SRRESNET, SRResNet

GENERATORS = {'srcnn': SRCNN, 'srresnet': SRRESNET, 'msrresnet': MSRRESNET}
DISCRIMINATORS = {'vgg_style': Discriminator}

__all__ = ['DISCRIMINATORS', 'GENERATORS', 'MSRRESNET', 'SRCNN', 'SRRESNET', 'Discriminator',
           'SRResNet']
