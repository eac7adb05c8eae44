"""One training step, pure: `(state, batch, frozen) -> (state, metrics)`.

`init_state` makes the state of step 0, `PixelStep` and `GanStep` take a step, and `SkipNonfinite`
wraps a step so that NaN and Inf never reach the weights. None of them is compiled; call them
through `jax.jit(step, donate_argnums=0)`.
"""

from sr_jax.step.flat import FlatTree, by_array
from sr_jax.step.freezing import Trainable
from sr_jax.step.nonfinite import SkipNonfinite
from sr_jax.step.state import Average, NetState, TrainState, begin_phase, init_state, variables
from sr_jax.step.train_step import GanStep, PixelStep, discriminate, generate

__all__ = ['Average', 'FlatTree', 'GanStep', 'NetState', 'PixelStep', 'SkipNonfinite',
           'TrainState', 'Trainable', 'begin_phase', 'by_array', 'discriminate', 'generate',
           'init_state', 'variables']
