"""Draw images from a trained model.

usage: python sample.py ckpt=RUN_FOLDER [OPTION] [GROUP=CHOICE] [KEY=VALUE] ...

  python sample.py ckpt=runs/mnist/first                 64 images and their grid
  python sample.py ckpt=runs/mnist/first n=16 seed=1 output=my/samples
  python sample.py ckpt=runs/mnist/first/best sampler=ddim sampler.steps=50
  python sample.py ckpt=runs/mnist/first keep=every:100  also images of intermediate states
  python sample.py ckpt=runs/digits/labels y=[7,3]       of these classes
"""

from pathlib import Path
from typing import Annotated

from omegaconf import DictConfig

from diffusion.config.plain import plain
from diffusion.config.value_types import Keep
from diffusion.ground.quiet import quiet
from diffusion.lit import notices
from diffusion.runs.open_model import Trained, TrainedKeys
from diffusion.sampling.drawing import Drawing
from diffusion.sampling.samples import Samples
from diffusion.sampling.section import Sampling, SamplingKeys, refuse

LESS_MEMORY = "lower batch_size"


class SampleKeys(SamplingKeys, TrainedKeys):
    """conf/sample.yaml."""

    keep: Keep
    npz: bool


def run(composed: Annotated[DictConfig, SampleKeys]) -> Path:
    """Samples as the composed `conf/sample.yaml` describes. Returns the folder; raises UserError for user errors,
    before anything is written."""
    quiet()
    config = plain(composed)
    trained = Trained.of(config)
    model = trained.model
    sampling = Sampling.of(config, model, ckpt=trained.ckpt, contents=trained.contents, given=config["given"])
    trained.contents.clear()  # the optimiser's state is large
    drawing = Drawing(model, sampling, config["keep"], config["batch_size"])
    unused = sampling.unused(model)
    refuse(config["given"], unused)
    notices.of_pictures(model.space.shape[0])
    settings = {**trained.settings(), **sampling.settings(unused)}
    samples = Samples(trained.output(config["output"]), settings, model.space)
    with samples.writing():
        return drawing.draw(samples, config["npz"])
