"""Our UNet against diffusers' `UNet2DModel` with the same weights: a training step, a forward pass, sampling, memory.

    python benchmarks/networks.py

Both have 1x32x32 inputs in batches of 64, widths (32, 64, 64), attention with heads of 8 channels at 16x16 and in the
middle, 1.62M parameters. A step is forward, backward and fused AdamW. Sampling is 10 steps of DDIM, ours as in
`sample.py` and theirs by `DDIMPipeline`. Memory is what a step adds to the peak memory of a separate process.
"""

import multiprocessing
import tempfile
from collections.abc import Callable
from pathlib import Path

import diffusers
import torch
from measure import Row, alternate, report, seconds
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from diffusion import clipping
from diffusion.denoiser import Denoiser
from diffusion.interop.diffusers import read
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.networks.kernels.choice import without_kernels
from diffusion.parametrization import Eps
from diffusion.runs import build
from diffusion.samplers.ddim import DDIM
from diffusion.schedule import linear
from diffusion.spaces.pixels import Pixels

BATCH, STEPS = 64, 10
CONFIG = {
    "sample_size": 32,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 2,
    "block_out_channels": (32, 64, 64),
    "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
}


def networks() -> tuple[nn.Module, nn.Module]:
    """Ours and theirs, with the same weights."""
    torch.manual_seed(0)
    theirs = diffusers.UNet2DModel(**CONFIG)
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        foreign = read(Path(folder))
    ours = build.instantiate(foreign.config["network"], in_channels=1, out_channels=1, size=32)
    ours.load_state_dict(foreign.weights)
    return ours, theirs


def output(network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    given = network(x, t)
    return given if isinstance(given, Tensor) else given.sample


def training_step(network: nn.Module) -> Callable[[], None]:
    x, eps = torch.randn(2, BATCH, 1, 32, 32)
    t = torch.randint(0, 1000, (BATCH,))
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        (output(network, x, t) - eps).square().mean().backward()
        optimizer.step()

    return step


def forward_pass(network: nn.Module) -> Callable[[], None]:
    x, t = torch.randn(BATCH, 1, 32, 32), torch.randint(0, 1000, (BATCH,))

    def step() -> None:
        with torch.no_grad():
            output(network, x, t)

    return step


def sampling(ours: nn.Module, theirs: nn.Module) -> tuple[Callable[[], object], Callable[[], object]]:
    model = LitDiffusion(Denoiser(ours, linear(), Eps()), DDIM(STEPS), clipping.Static(), Pixels((1, 32, 32)))
    pipeline = diffusers.DDIMPipeline(theirs, diffusers.DDIMScheduler())
    pipeline.set_progress_bar_config(disable=True)
    return (
        lambda: model.sample(BATCH, progress=False),
        lambda: pipeline(BATCH, num_inference_steps=STEPS, output_type="np"),
    )


def step_memory(which: int) -> float:
    """MB that a training step adds to the peak memory of this process."""
    network = networks()[which]
    before = peak()
    training_step(network)()
    return peak() - before


def peak() -> float:
    """The peak memory of this process in MB, on Linux; `getrusage` would include the parent's."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def in_own_process(which: int) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(step_memory, [which])


def off(network: nn.Module, action: Callable[[], object]) -> Callable[[], None]:
    """The action with kernels=off."""

    def run() -> None:
        with without_kernels(network):
            action()

    return run


def rate(action: Callable[[], object]) -> Callable[[], float]:
    """images/s of an action on one batch, after one warm-up call."""
    action()
    return lambda: BATCH / seconds(action)


def rows() -> list[Row]:
    ours, theirs = networks()
    pairs = {
        "training step / diffusers": [training_step(network) for network in (ours, theirs)],
        "the same, kernels=off": [off(ours, training_step(ours)), training_step(theirs)],
        "forward pass / diffusers": [forward_pass(network) for network in (ours, theirs)],
        f"DDIM, {STEPS} steps / DDIMPipeline": sampling(ours, theirs),
    }
    found = [alternate(what, *map(rate, pair), "images/s", rounds=4) for what, pair in pairs.items()]
    memory = [lambda: in_own_process(0), lambda: in_own_process(1)]
    return [*found, alternate("memory of a step / diffusers", *memory, "MB", rounds=2, less=True)]


def useful_gflop() -> float:
    """GFLOP of a training step, per image."""
    with FlopCounterMode(display=False) as counter:
        training_step(networks()[1])()
    return counter.get_total_flops() / BATCH / 1e9


if __name__ == "__main__":
    print(f"{useful_gflop():.2f} GFLOP per image of a training step")
    report(rows())
