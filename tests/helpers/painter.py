"""A module whose pictures tell which weight drew them."""

from types import SimpleNamespace
from typing import ClassVar

import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader

from diffusion.ground.random import normal
from diffusion.guidance import ClassifierFree
from diffusion.schedule import linear
from diffusion.spaces.pixels import Pixels


class Painter(LightningModule):
    """Draws noise times its one weight: as x_0; the states before it are of another weight, half at each."""

    classes = None
    conditioning: ClassVar = {}
    denoiser = SimpleNamespace(schedule=linear())
    objective = SimpleNamespace(learns_variance=False)
    guidance = ClassifierFree(scale=1.0)
    config: ClassVar = {
        "dataset": {},
        "sampler": {"_target_": "diffusion.samplers.ddim.DDIM", "steps": 3, "times": "trailing"},
        "clipping": {"_target_": "diffusion.clipping.Static"},
        "guidance": {"_target_": "diffusion.guidance.ClassifierFree", "scale": 1.0},
    }

    def __init__(self, channels=1):
        super().__init__()
        self.space = Pixels((channels, 8, 8))
        self.weight = torch.nn.Parameter(torch.tensor(0.05))
        self.drawn = []

    def paint(self, noise):
        return noise * self.weight.item()

    def sample_batches(self, index, seed, sampler, keep, purpose, **_):
        self.drawn.append((len(index), seed, purpose, sampler.steps, self.weight.item()))
        x_0 = self.paint(normal(seed, purpose, index, self.space.shape))
        states = torch.stack([x_0 / 2**k for k in range(sampler.steps, -1, -1)])
        half = len(index) // 2
        yield index[:half], states[:, :half]
        yield index[half:], states[:, half:]

    def training_step(self, batch, batch_idx):
        loss = (self.weight - 1).square()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.weight, sync_dist=True)

    def averaged_parameters(self):
        return self.named_parameters()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return DataLoader(torch.zeros(4, 1), batch_size=1)

    val_dataloader = train_dataloader
