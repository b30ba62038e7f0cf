"""A checkpoint of a tiny network with random weights: what a command makes of it shows at once, without a training."""

from pathlib import Path

import torch

from diffusion.config import upgrades
from diffusion.runs import build
from diffusion.runs import compose as configs
from diffusion.runs.groups import choice
from tests.helpers.commands import tiny


def random_model(path: Path, *given, classes=None) -> Path:
    """Writes the checkpoint that a training by those words would, its weights and their average at random."""
    config = configs.OmegaConf.to_container(configs.compose("train", tiny(*given)), resolve=True)
    if classes:
        config["conditioning"] = {"label": {**choice("conditioning", "label")["label"], "classes": classes}}
    states = []
    generator = torch.Generator().manual_seed(config["seed"])
    for _ in range(2):
        model = build.model(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
        states.append(model.state_dict())
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {**upgrades.stamped(config), "state_dict": states[0], "ema_state_dict": states[1], "global_step": 1}, path
    )
    return path
