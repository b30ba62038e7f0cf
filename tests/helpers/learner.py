"""The smallest LightningModule whose loss falls."""

import time

import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader


class Learner(LightningModule):
    def __init__(self, seconds_per_step=0.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(0.0))
        self.seconds_per_step = seconds_per_step

    def training_step(self, batch, batch_idx):
        time.sleep(self.seconds_per_step)
        loss = (self.weight - 1).square()
        self.log("loss", loss, prog_bar=True)
        self.log("hidden", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.weight - self.weight + 0.125, prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return DataLoader(list(zip(torch.zeros(12, 1), torch.zeros(12, 1), strict=True)), batch_size=3)

    val_dataloader = train_dataloader
