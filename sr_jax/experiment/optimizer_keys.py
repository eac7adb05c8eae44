"""The keys of config.optimizer: the optimiser and its learning rate schedule, for each network.

What None stands for is in optimizer.py, whose `DEFAULTS` depend on the optimiser.
"""

from sr_jax.experiment.key import Key

COUNT, NOT_NEGATIVE = '[1, inf)', '[0, inf)'

_KEYS = (
    Key('name', str, 'adam',
        "The optimiser: 'adam'; 'adamw' (adam with weight decay); 'adan'; 'lion'; 'muon' "
        "(orthogonalises the kernels of hidden layers, and uses adam for the rest); or "
        "'schedule_free' (adamw that averages its weights, which are those that are evaluated, so "
        'that the learning rate need not fall; needs `ema=0`). Their state differs: a run keeps '
        'the one that it was started with.',
        choices=('adam', 'adamw', 'adan', 'lion', 'muon', 'schedule_free')),
    Key('learning_rate', float, 1e-4,
        'Learning rate (lr) after the `ramp`, before `schedule` changes it.', NOT_NEGATIVE),
    Key('schedule', str, 'constant',
        "How the learning rate changes during the phase; schedule_free needs 'constant'.",
        choices=('constant', 'multistep', 'cosine')),
    Key('boundaries', tuple[float, ...], (),
        'multistep: the steps of the phase at which the learning rate is multiplied by `factor`; '
        'a number below 1 is a share of the phase.', '(0, 2147483648]'),
    Key('factor', float, 0.5, 'multistep: what the learning rate is multiplied by.', NOT_NEGATIVE),
    Key('final', float, 0.0,
        'cosine: the learning rate at the end of the phase, as a share of `learning_rate`.',
        NOT_NEGATIVE),
    Key('ramp', int, 0,
        'Number of steps at the start of the phase in which the learning rate rises from 0.',
        NOT_NEGATIVE),
    Key('beta1', float, None,
        'Decay of the mean of the gradients; schedule_free: how near the gradients are taken to '
        'the averaged weights. By default 0.9; 0.98 with adan, 0.95 with muon.', '[0, 1)'),
    Key('beta2', float, None,
        'Decay of the mean of their squares; adan: of their differences; lion: of the momentum. By '
        'default 0.999; 0.92 with adan, 0.99 with lion.', '[0, 1)'),
    Key('beta3', float, None, 'adan: decay of the mean of the squares. By default 0.99.', '[0, 1)'),
    Key('epsilon', float, None,
        'Added to the root of the mean square; lion has none. By default 1e-8.', NOT_NEGATIVE),
    Key('weight_decay', float, None,
        'Weight decay as in AdamW, multiplied by the learning rate, for all trainable arrays. By '
        'default 0; 0.01 with adamw.', NOT_NEGATIVE),
    Key('clip_norm', float, 0.0,
        'Largest norm of the gradient, taken over all arrays; 0 sets no limit.', NOT_NEGATIVE),
)

OPTIMIZERS = {
    'g': 'The generator in the main phase.', 'd': 'The discriminator.',
    'warmup': 'The generator in the warm-up.'}

OPTIMIZER = tuple(key._replace(name=f'optimizer.{name}.{key.name}')
                  for name in OPTIMIZERS for key in _KEYS)
