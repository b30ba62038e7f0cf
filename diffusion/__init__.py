"""Train a denoising diffusion model and sample from it.

>>> import diffusion
>>> model = diffusion.load("runs/mnist/...")          # a run folder or a checkpoint
>>> x_0 = model.sample(16, seed=0)                    # float (16, C, H, W), of a model of pictures in [-1, 1]
>>> model.space.decode(x_0)                           # what the data set stores: uint8 of pictures
"""

import importlib


def __getattr__(name: str):
    # torch and lightning take seconds to import; `--help` and a wrong option answer without them.
    if name == "load":
        return importlib.import_module("diffusion.runs.checkpoint").load
    if name == "images":
        return importlib.import_module("diffusion.ground.images")
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("diffusion")
    raise AttributeError(f"module 'diffusion' has no attribute {name!r}")
