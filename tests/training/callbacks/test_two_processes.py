"""Two gloo processes: the same average on both, and one preview, one file, one W&B run between them."""

import pytest
import torch

from tests.helpers.offline_wandb import read_offline_runs
from tests.helpers.two_processes import run_script

SCRIPT = """
import sys
from pathlib import Path
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader
from diffusion.optimization.averages import Decay
from diffusion.training.callbacks.ema import EMA
from diffusion.training.callbacks.preview import Preview
from diffusion.training.callbacks.progress import Progress
from diffusion.runs.groups import choice
from diffusion.training.loggers.base import build_loggers
from tests.helpers.painter import Painter

class Model(Painter):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 1)

    def training_step(self, batch, batch_idx):
        return (self.layer(batch[0]) - 1).square().mean() + 0 * self.weight

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.1)

    def train_dataloader(self):
        return DataLoader(list(zip(torch.linspace(-1, 1, 24).reshape(8, 3))), batch_size=2)

    val_dataloader = train_dataloader

folder = Path(sys.argv[1])
ema = EMA(Decay(0.9))
trainer = Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, enable_checkpointing=False, enable_model_summary=False,
    callbacks=[Preview(folder / "samples", n=4), ema, Progress()],
    logger=build_loggers({"wandb": {**choice("logger", "wandb")["wandb"], "mode": "offline"}}, folder, "two", {}),
)
model = Model()
trainer.fit(model)
torch.save([*ema.first.values(), *model.parameters()], folder / f"rank{trainer.global_rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_share_one_run(tmp_path):
    result = run_script(SCRIPT, tmp_path)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[2])  # average and raw
    assert len(list((tmp_path / "samples").glob("epoch_*.png"))) == 2
    (run,) = read_offline_runs(tmp_path)
    assert len(run.values("preview")) == len(run.values("val/loss")) == 2
    assert result.stderr.count("trained 4 steps, 16 images") == 1
    assert result.stdout.count("wandb sync") == 1
    header, *_ = (tmp_path / "metrics.csv").read_text().splitlines()
    assert sorted(header.split(",")) == ["epoch", "preview/seconds", "step", "val/loss"]
