"""The bare training loop that the trainer is compared with: only what Algorithm 1 needs."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion.ground import images
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.process import Noised


def train(model: LitDiffusion, pictures: Tensor, config: Mapping[str, Any]) -> Iterator[list[Tensor]]:
    """Trains model indefinitely on pictures, uint8 (N, C, H, W): a batch by indexing, torch.randn, loss, backward,
    clipping, fused AdamW, and the moving average as one foreach call. Yields the average after each step."""
    batch_size, T, decay = config["dataset"]["batch_size"], model.denoiser.schedule.T, config["ema"]["decay"]
    optimizer, lr = model.optimizer.build(model.parameters())
    parameters = list(model.parameters())
    average = [parameter.detach().clone() for parameter in parameters]
    model.train()
    step = 0
    while True:
        for rows in torch.randperm(len(pictures)).split(batch_size)[: len(pictures) // batch_size]:
            x_0 = images.from_uint8(pictures[rows])
            t = torch.randint(1, T + 1, (batch_size,)).float()
            loss = model.objective(
                model.denoiser, Noised.of(model.denoiser.schedule, x_0, t, torch.randn_like(x_0))
            ).mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, config["trainer"]["gradient_clip"])
            optimizer.step()
            lr.step()
            step += 1
            d = min(decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(average, [parameter.detach() for parameter in parameters], 1 - d)
            yield average
