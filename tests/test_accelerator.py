"""Every part on a device without float64, such as MPS: by an imitation with real numbers, against the CPU's; and what
makes the host wait for such a device."""

from collections import Counter
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from diffusion.data.base import labelled
from diffusion.data.batches import Batch
from diffusion.data.digits import Digits
from diffusion.evaluation.metrics.bpd import BPD
from diffusion.optimization.averages import Decay
from diffusion.runs import build, compose
from diffusion.runs.groups import groups_of
from diffusion.samplers.ddim import DDIM
from diffusion.spaces.pixels import Pixels
from diffusion.tasks.img2img import Img2Img
from diffusion.tasks.inpaint import Inpaint
from diffusion.tasks.interpolate import Interpolate
from diffusion.training.callbacks.curves import LossCurve, ScheduleCurve
from diffusion.training.callbacks.ema import EMA
from diffusion.training.callbacks.predictions import Predictions
from diffusion.training.callbacks.preview import Preview
from tests.helpers.accelerator import DEVICE, FROM_DEVICE, TO_DEVICE, Accelerator

CPU = torch.device("cpu")
WORDS = [
    *("dataset=digits", "network=unet_tiny", "network.widths=[8]", "network.attention=[]", "network.layers=1"),
    *("schedule.T=5", "conditioning=label"),
]


def choices(group, *but):
    return [f"{group}={name}" for name in groups_of("train")[group].choices if name not in but]


def entered(device):
    return Accelerator() if device == DEVICE else nullcontext(SimpleNamespace(waits=Counter()))


def model(*overrides):
    """The model of these words, the same each time, with weights that are not 0 anywhere."""
    composed = OmegaConf.to_container(compose.compose("train", [*WORDS, *overrides]), resolve=True)
    composed["conditioning"]["label"]["classes"] = list("0123456789")
    made = build.trainable(composed)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    strategy = SimpleNamespace(all_gather=lambda x, **_: x, reduce=lambda x, **_: x, root_device=DEVICE)
    made._trainer = SimpleNamespace(training=True, strategy=strategy, global_step=0, is_global_zero=True, loggers=[])
    made._trainer.callbacks = []
    made._trainer.optimizers = [torch.optim.SGD(made.parameters())]
    made.log = lambda *_, **__: None
    return made


def pair_on(made, device, dtype=torch.uint8):
    x = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)).to(dtype)
    pair = made.on_before_batch_transfer(Batch(x, labelled(torch.tensor([0, 3, -1, 9])), torch.arange(4)), 0)
    return type(pair)(*(part.to(device) for part in pair))


def assert_close(there, here, tolerance=1e-4):
    for one, other in zip(there, here, strict=True):
        torch.testing.assert_close(one, other.to(one), rtol=0, atol=tolerance * other.abs().max().item())


def step(made, device, dtype=torch.uint8):
    """The loss of a training step, its gradient and what validation makes of it, on the CPU; and the step's waits."""
    with entered(device) as accelerator:
        made.to(device)
        pair = pair_on(made, device, dtype)
        accelerator.waits.clear()
        loss = made.training_step(pair, 0)
        loss.backward()
        waits = accelerator.waits.copy()
        validated = made.validation_step(pair, 0)
        made.on_validation_epoch_end()
        gradient = torch.cat([parameter.grad.cpu().flatten() for parameter in made.parameters()])
        return [loss.cpu(), gradient, validated.cpu()], waits


WAITS = {
    "timesteps=loss_second_moment": {FROM_DEVICE: 2},  # it learns from t and the losses
}


@pytest.mark.parametrize(
    "overrides",
    [
        *choices("schedule", "table"),
        *choices("prediction"),
        *choices("loss"),
        *choices("weighting"),
        *choices("timesteps"),
        "self_conditioning=true",
    ],
)
def test_a_training_step_is_that_of_the_cpu(overrides):
    there, waits = step(model(overrides), DEVICE)
    here, _ = step(model(overrides), CPU)
    assert_close(there, here)
    assert waits == WAITS.get(overrides, {})


FLOATS = [
    *("space=standardized", "space.mean=[100]", "space.std=[50]", "space.low=[0]", "space.high=[255]"),
    *("loss=hybrid", "self_conditioning=true"),
]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_floats_are_standardised_on_the_device(dtype):
    there, _ = step(model(*FLOATS), DEVICE, dtype)
    here, _ = step(model(*FLOATS), CPU, dtype)
    assert_close(there, here)
    _, waits = step(model(*FLOATS), DEVICE, dtype)  # the statistics are there from the first step
    assert not waits


def sampled(*overrides, **options):
    """What is drawn on both devices, and the waits on the imitated one."""
    found = []
    for device in CPU, DEVICE:
        with entered(device) as accelerator:
            made = model(*overrides).to(device)
            accelerator.waits.clear()
            found.append(made.sample(2, y=[1, 2], progress=False, **options))
    return found, accelerator.waits


@pytest.mark.parametrize(
    "overrides",
    [
        *(f"schedule={name}" for name in ("vp", "cosine_continuous")),  # in closed form
        *choices("prediction"),
        *choices("clipping"),
        *(f"sampler.times={name}" for name in ("leading", "linspace", "quadratic", "log_snr", "karras")),
        "loss=hybrid",
        "guidance.interval=[2,3]",
        "guidance.rescale=0.5",
        "guidance.of=sigma",
    ],
)
def test_an_image_is_that_of_the_cpu(overrides):
    (here, there), _ = sampled(overrides)
    assert_close([there], [here])


@pytest.mark.parametrize("overrides", choices("sampler"))
def test_a_sampling_step_waits_for_its_noise_alone(overrides):
    (here, there), waits = sampled(overrides, "sampler.steps=4")
    assert_close([there], [here])
    noise = 4 if overrides == "sampler=ddpm" else 0
    assert waits == Counter({TO_DEVICE: 2 + noise, FROM_DEVICE: 1})  # x_T and y, and x_0


@pytest.mark.parametrize("churn", [0.0, 2.0])
def test_churn_and_a_stochastic_solver(churn):
    overrides = (
        ["sampler=euler", f"sampler.churn={churn}"] if churn else ["sampler=dpm_solver_pp", "sampler.stochastic=true"]
    )
    (here, there), _ = sampled(*overrides, "sampler.steps=4")
    assert_close([there], [here])


def picture(path, value=200):
    Image.new("L", (8, 8), value).save(path)
    return str(path)


@pytest.mark.parametrize("name", ["img2img", "inpaint", "interpolate"])
def test_a_task_is_that_of_the_cpu(name, tmp_path):
    image, mask = picture(tmp_path / "image.png"), Image.new("L", (8, 8), 0)
    mask.paste(255, (0, 0, 4, 8))
    mask.save(tmp_path / "mask.png")
    task = {
        "img2img": lambda: Img2Img(image, 4, Pixels((1, 8, 8))),
        "inpaint": lambda: Inpaint(image, str(tmp_path / "mask.png"), 2, 3, Pixels((1, 8, 8))),
        "interpolate": lambda: Interpolate(image, picture(tmp_path / "end.png", 30), 2, None, Pixels((1, 8, 8))),
    }[name]
    (here, there), _ = sampled(task=task(), sampler=DDIM(steps=4))
    assert_close([there], [here], tolerance=2e-3)  # the way back to the noise multiplies what float32 has rounded


@pytest.mark.parametrize("overrides", [["loss=l2"], ["loss=hybrid"], FLOATS])
def test_the_bound_is_that_of_the_cpu(overrides):
    data, found = Digits(channels=1, size=8, batch_size=8), []
    for device in CPU, DEVICE:
        with entered(device):
            score = BPD(n=3, steps=4)(model(*overrides).to(device), data, seed=0, batch_size=2)
        found.append(torch.tensor([score.value, *score.details["parts"].values()]))
    assert_close(found[:1], found[1:])


def test_what_a_validation_draws(tmp_path):
    with Accelerator():
        made = model("loss=hybrid").to(DEVICE)
        pair = pair_on(made, DEVICE)
        for callback in Predictions(tmp_path), LossCurve(tmp_path), Preview(tmp_path, n=2, sampler={"steps": 2}):
            callback.on_validation_batch_end(made._trainer, made, torch.ones(4, device=DEVICE), pair, 0)
            assert all(path.is_file() for path in callback.draw(made, "now").values())
        ScheduleCurve(tmp_path).on_train_start(made._trainer, made)
    assert (tmp_path / "schedule.png").is_file()


def test_an_average_is_that_of_the_cpu():
    averages = []
    for device in CPU, DEVICE:
        with entered(device):
            made, callback = model().to(device), EMA(Decay(0.5))
            made._trainer.strategy.root_device = device
            callback.setup(made._trainer, made, "fit")
            callback.on_train_start(made._trainer, made)
            for made._trainer.global_step in 1, 2:
                with torch.no_grad():
                    for parameter in made.parameters():
                        parameter.mul_(1.5)
                callback.on_train_batch_end(made._trainer, made, None, None, 0)
            averages.append([average.cpu() for average in callback.first.values()])
    assert_close(*averages)
