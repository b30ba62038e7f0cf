"""Search for the best small network: candidates for MNIST on a CPU, trained for the same time, compared by samples.

    python benchmarks/small_network.py [minutes=2] [images=2048] [NAME ...]      # no NAME: all candidates

Time is CPU time of one core, so other load on the machine does not matter. Samples are drawn with the averaged weights
and compared with the test images by the Frechet distance (Heusel et al. 2017) of the features of a classifier trained
here on
the training images: 0 is the same distribution, and the first line gives the distance of real training images. The
samples are written beside the table.
"""

import sys
import time
from pathlib import Path

import torch
from frechet import accuracy, classifier, features, frechet_distance
from loop import train
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.nn import functional as F

from diffusion.ground import images
from diffusion.ground.bar import Bar
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.runs import build
from diffusion.runs.compose import compose
from diffusion.runs.groups import choice

FOLDER = Path("runs/benchmarks/small_network")
BATCH = 64
WITH = "network.mid_attention=true "
CANDIDATES = {
    "no-attention": "",
    "no-attention-1": "network.layers=1",
    "no-attention-48": "network.widths=[48,96] network.layers=1",
    "24-48": WITH + "network.widths=[24,48]",
    "32-64": WITH,
    "48-96": WITH + "network.widths=[48,96]",
    "64-128": WITH + "network.widths=[64,128]",
    "32-64-3": WITH + "network.layers=3",
    "64-128-1": WITH + "network.widths=[64,128] network.layers=1",
    "32-96": WITH + "network.widths=[32,96]",
    "64-64": WITH + "network.widths=[64,64]",
    "attention-14": WITH + "network.attention=[14] network.head_width=8",
    "attention-7": WITH + "network.attention=[7] network.head_width=16",
    "heads-8": WITH + "network.head_width=8",
    "full-resolution": WITH + "network.widths=[16,32,64] network.patch=1 network.layers=1",
    "patch-4": WITH + "network.widths=[128] network.patch=4 network.layers=3",
    "rms-norm": WITH,
}


class RMSNorm(nn.Module):
    """Over the channels of each pixel (Zhang & Sennrich 2019), whereas GroupNorm normalises over groups and all
    pixels."""

    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.full((width, 1, 1), width**0.5))

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1) * self.scale


def swap_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(module, name, RMSNorm(child.num_channels))
        swap_norms(child)


def trained(name: str, pictures: Tensor, minutes: float) -> tuple[LitDiffusion, int]:
    """The model of a candidate with its averaged weights after the given minutes, and how many images it has seen."""
    torch.manual_seed(0)
    config = OmegaConf.to_container(compose("train", ["experiment=mnist_cpu", *CANDIDATES[name].split()]), resolve=True)
    model = build.trainable(config)
    if name == "rms-norm":
        swap_norms(model)
    start = time.process_time()
    bar = Bar(train(model, pictures, config), desc=name, unit=" step")
    step, average = next(pair for pair in enumerate(bar, 1) if time.process_time() - start > 60 * minutes)
    for parameter, value in zip(model.parameters(), average, strict=True):
        parameter.data.copy_(value)
    return model, step * config["dataset"]["batch_size"]


def main() -> None:
    options = dict(each.split("=") for each in sys.argv[1:] if "=" in each)
    minutes, count = float(options.get("minutes", 2)), int(options.get("images", 2048))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data = build.instantiate(choice("dataset", "mnist") | {"path": options.get("path", "data")})
    data.prepare_data()
    (pictures, of_pictures), (test, of_test) = data.split("train"), data.split("val")
    labels, test_labels = of_pictures.tensors["label"], of_test.tensors["label"]
    judge = classifier(pictures, labels)
    right = accuracy(judge, test, test_labels)
    real = features(judge, test)
    lines = [
        f"{minutes:g} minutes of one core each, {count} images; the classifier's test accuracy is {right:.1%}",
        f"{'network':<18}{'parameters':>12}{'images seen':>14}{'distance':>10}",
        f"{'(real images)':<18}{'':>26}{frechet_distance(features(judge, pictures[:count]), real):>10.2f}",
    ]
    print("\n".join(lines), flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    sampler = build.instantiate(choice("sampler", "dpm_solver_pp") | {"steps": 20})
    for name in [each for each in sys.argv[1:] if "=" not in each] or CANDIDATES:
        model, seen = trained(name, pictures, minutes)
        drawn = model.space.picture(model.sample(count, sampler=sampler, batch_size=BATCH))
        images.write_png(FOLDER / f"{name}.png", images.grid(drawn[:64]))
        size = sum(parameter.numel() for parameter in model.parameters())
        lines.append(f"{name:<18}{size:>12,}{seen:>14,}{frechet_distance(features(judge, drawn), real):>10.2f}")
        print(lines[-1], flush=True)
        (FOLDER / "table.txt").write_text("\n".join(lines) + "\n")
    print(FOLDER / "table.txt")


if __name__ == "__main__":
    main()
