"""Super-resolution networks in JAX and Flax: train, measure, use."""


def load(source, *, step='latest', raw=False, wrapper='', fields=None):
  """A network with its weights: `sr = sr_jax.load('runs/srgan')(lr)`.

  Args:
    source: the folder of a run; a `.safetensors`, `.pth` or ncnn file; or the name of a
      published network, such as 'realesrgan-x4plus'.
    step, raw: of a run: a checkpoint's step, 'latest' or 'best'; its weights themselves
      rather than their average.
    wrapper, fields: of a file: the key of a `.pth` that its weights lie under; fields of the
      network that it can't tell, such as {'residual_scale': 0.1}.

  Returns:
    A `restore.Model`: a function of NumPy uint8 pictures, [h, w, 3], [h, w, 1] or [h, w], to
    the same `.scale` times larger.

  Raises:
    InputError: a ValueError of one line that names the file, the tensor and the shape expected.
  """
  from sr_jax import restore  # late: JAX is not needed to import the package
  return restore.load(source, step=step, raw=raw, wrapper=wrapper, fields=fields)
