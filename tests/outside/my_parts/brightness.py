"""A metric that draws samples."""

import torch
from matplotlib.figure import Figure

from diffusion.config.value_types import Count, checked
from diffusion.evaluation.metrics.base import ModelMetric, Score


@checked
class Brightness(ModelMetric):
    """How much brighter samples are than the validation images, on average, in the units of x_0.

    bins: of the histograms.
    """

    name = "brightness"
    samples = 16  # where n is not typed

    def __init__(self, bins: Count = 20):
        self.bins = bins

    def check(self, model, data) -> None:
        """Everything can be measured."""

    def __call__(self, model, data, *, seed, batch_size, sampling) -> Score:
        index = torch.arange(sampling.n)
        batches = sampling.batches(model, index, batch_size=batch_size)
        drawn = torch.cat([states[-1] for _, states in batches])
        real = model.space.encode(data.split("val")[0][:])
        more = (drawn.mean() - real.mean()).item()
        figure = Figure()
        axes = figure.subplots()
        axes.hist([real.flatten().numpy(), drawn.flatten().numpy()], self.bins, density=True, label=["data", "samples"])
        axes.legend()
        details = {"samples": drawn.mean().item(), "data": real.mean().item()}
        summary = f"{len(drawn)} samples are brighter by {more:.4f}"
        return Score(more, details, {"n": len(drawn)}, summary, figure)
