"""Models of diffusers with random weights, ours of them, and the comparison of both."""

import copy
import functools
import json

import diffusers
import torch

from diffusion.clipping import Clip
from diffusion.interop import diffusers as interop
from diffusion.interop import foreign
from diffusion.runs import checkpoint
from diffusion.runs import compose as configs

STEPS = 10
ATTENTION = ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D")
UNET, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"
OURS = {"sample_size": 8, "block_out_channels": (16, 16, 32), "norm_num_groups": 8, "layers_per_block": 1}
OURS |= {"down_block_types": ATTENTION[0], "up_block_types": ATTENTION[1]}


def randomised(module):
    """Every parameter random, those too that start as 0 or 1; large enough that an error would show."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            scale = 0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
            if "norm" in name and name.endswith("weight"):
                parameter += 1
    return module.eval()


@functools.cache
def _peer(settings):
    return randomised(diffusers.UNet2DModel(**json.loads(settings)))


def pipeline(unet=OURS, **scheduler):
    kind = getattr(diffusers, scheduler.pop("kind", "DDPMScheduler"))
    made = diffusers.DDPMPipeline(copy.deepcopy(_peer(json.dumps(unet))), kind(**scheduler))
    made.set_progress_bar_config(disable=True)
    return made


def converted(folder):
    foreign.write(interop.read(folder), folder / "made.ckpt")
    return checkpoint.load(folder / "made.ckpt")


@torch.no_grad()
def check_same(theirs, model):
    """One forward pass within 1e-5, the images of 10 sampling steps within 1e-4."""
    channels, size, _ = model.shape
    x, t = torch.randn(2, channels, size, size, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 37])
    expected = theirs.unet(x, t).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(model.denoiser.output(x, t + 1), expected, atol=1e-5, rtol=0)

    images = theirs(2, torch.Generator().manual_seed(2), num_inference_steps=STEPS, output_type="pt").images
    generator = torch.Generator().manual_seed(2)
    noise = functools.partial(torch.randn, x.shape, generator=generator)
    model.sampler.steps = STEPS
    *_, last = model.sampler.trajectory(Clip(model.denoiser, model.clip), noise(), noise)
    assert images.std() > 0.05
    assert ((images > 0) & (images < 1)).float().mean() > 0.1  # not all at the ends
    torch.testing.assert_close((last.x / 2 + 0.5).clamp(0, 1), images, atol=1e-4, rtol=0)


def ours(*overrides):
    """A model of ours with random weights."""
    overrides = ["dataset=digits", "network=unet_tiny", "network.widths=[16,32]", *overrides]
    config = configs.OmegaConf.to_container(configs.compose("train", overrides), resolve=True)
    model = checkpoint.model_of(config, "test")
    randomised(model.denoiser)
    return model.eval()
