"""LitDiffusion.sample and sample_batches, as a caller in Python uses and misuses them."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from diffusion import clipping, parametrization, schedule
from diffusion.denoiser import Denoiser
from diffusion.ground.errors import Notice, UserError
from diffusion.guidance import ClassifierFree
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.networks.lucid import LucidUNet
from diffusion.networks.unet import UNet
from diffusion.samplers.ddim import DDIM
from diffusion.samplers.ddpm import DDPM
from diffusion.spaces.pixels import Pixels
from diffusion.tasks.generate import Generate
from tests.helpers.labelled import SHAPE, lit


def test_a_model_without_classes_takes_none():
    with pytest.raises(UserError, match=r"y=1: this model was trained without classes \(conditioning=none\)"):
        lit(classes=None).sample(3, y=1, progress=False)


@pytest.mark.parametrize(
    ("options", "reported"),
    [
        ({"sampler": "ddim"}, r"sampler='ddim': expected an object, such as diffusion.samplers.ddim.DDIM\(steps=50\)"),
        ({"sampler": DDIM}, r"sampler=<class .*DDIM'>: expected an object, such as"),
        ({"clip": "dynamic"}, r"clip='dynamic': expected an object, such as diffusion.clipping.Dynamic\(\)"),
        ({"clip": clipping.Static}, r"clip=<class .*Static'>: expected an object"),
        (
            {"guidance": 3.0, "y": 1},
            r"guidance=3.0: expected .*, such as diffusion.guidance.ClassifierFree\(scale=2.0\)",
        ),
        ({"task": "img2img"}, r"task='img2img': expected an object, such as diffusion.tasks.img2img.Img2Img"),
        ({"task": Generate}, r"task=<class .*Generate'>: expected an object"),
        ({"guidance": ClassifierFree(3.0)}, "guidance needs a class: set y="),
        ({"task": Generate(Pixels((3, 4, 4)))}, r"task is for .*\(3, 4, 4\).*, the model's is .*\(1, 4, 4\)"),
        ({"n": 0}, "n=0: expected a whole number, 1 or more"),
        ({"n": -2}, "n=-2: expected a whole number, 1 or more"),
        ({"n": 2.0}, "n=2.0: expected a whole number"),
        ({"n": "4"}, "n='4': expected a whole number"),
        ({"seed": -1}, "seed=-1: expected a whole number, 0 or more"),
        ({"seed": 1.0}, "seed=1.0: expected a whole number"),
        ({"seed": True}, "seed=True: expected a whole number"),
        ({"seed": None}, "seed=None: expected a whole number"),
        ({"seed": "1"}, "seed='1': expected a whole number"),
        ({"batch_size": 0}, "batch_size=0: expected a whole number, 1 or more"),
        ({"batch_size": 2.5}, "batch_size=2.5: expected a whole number"),
        ({"keep": 1}, "keep=1: expected increasing numbers of states"),
        ({"keep": "all"}, "keep='all': expected increasing numbers of states"),
        ({"keep": [1.0, 2.0]}, r"keep=\[1.0, 2.0\]: expected increasing numbers of states"),
        ({"keep": [0, 1]}, r"keep=\[0, 1\]: expected increasing numbers of states, from 0 or more to 2"),
        ({"keep": [0, 99]}, r"keep=\[0, 99\]: expected"),
        ({"keep": [0, 0, 2]}, r"keep=\[0, 0, 2\]: expected"),
        ({"keep": [-1, 2]}, r"keep=\[-1, 2\]: expected"),
        ({"keep": []}, r"keep=\[\]: expected"),
        ({"sampler": DDPM(steps=500)}, "sampler.steps=500"),
    ],
)
def test_options_of_the_wrong_kind_are_refused_in_one_line(options, reported):
    with pytest.raises(UserError, match=reported) as refused:
        lit().sample(**{"n": 2, "progress": False} | options)
    assert "\n" not in str(refused.value)


def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match="unexpected keyword argument 'steps'"):
        lit().sample(2, steps=20)


@pytest.mark.parametrize("index", [[0, 1], range(2), np.arange(2), torch.arange(2, dtype=torch.int32)])
def test_images_may_be_listed(index):
    [(rows, states)] = lit().sample_batches(index, y=0, progress=False)
    assert rows.tolist() == [0, 1]
    assert states.shape == (1, 2, *SHAPE)


@pytest.mark.parametrize("index", [torch.tensor([0.0, 1.0]), [[0, 1]], "01", [-1], 3])
def test_what_names_no_images_is_refused_before_the_first_is_drawn(index):
    with pytest.raises(UserError, match=r"index=.*: expected the numbers of images"):
        lit().sample_batches(index, y=0)


def test_no_images_are_no_batches():
    assert list(lit().sample_batches(torch.arange(0), y=[])) == []


def test_every_kind_of_whole_number_is_the_same_seed():
    model = small()
    images = [model.sample(1, seed, progress=False) for seed in (1, np.int64(1), torch.tensor(1))]
    assert all(torch.equal(image, images[0]) for image in images)
    assert not torch.equal(images[0], model.sample(1, 2, progress=False))
    assert not torch.equal(*(model.sample(1, seed, progress=False) for seed in (2**70, 2**70 + 1)))


def small(kind=UNet, shape=(1, 8, 8)):
    torch.manual_seed(0)
    wide = {"widths": (8, 16), "layers": 1, "attention": (4,), "norm_groups": 4, "head_width": 4}
    options = {UNet: wide, LucidUNet: {"width": 8, "multiples": (1, 2), "full_attention": (False, True)}}[kind]
    network = kind(shape[0], shape[0], shape[1], **options)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    denoiser = Denoiser(network, schedule.linear(1000), parametrization.V())
    return LitDiffusion(denoiser, DDPM(steps=10), clipping.Static(), Pixels(shape), config={}).eval()


@pytest.mark.parametrize("kind", [UNet, LucidUNet])
@pytest.mark.parametrize(
    ("cast", "off"),
    [(nn.Module.double, 1e-4), (nn.Module.half, 2e-2), (nn.Module.bfloat16, 1e-1)],
    ids=["double", "half", "bfloat16"],
)
def test_a_cast_network_draws_the_same_images_up_to_its_precision(kind, cast, off):
    model = small(kind)
    exact = model.sample(4, progress=False)
    table = model.denoiser.schedule.table.clone()
    images = cast(model).sample(4, progress=False)
    assert images.dtype == torch.float32  # the state of the reverse process keeps its precision, and so does its noise
    assert model.denoiser.schedule.table.dtype == torch.float64
    assert torch.equal(model.denoiser.schedule.table, table)
    assert (images - exact).abs().max() < off
    assert not torch.equal(images, exact)


def notices(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(each.message) for each in caught if issubclass(each.category, Notice)]


def test_unambiguous_calls_give_no_notice():
    assert notices(lambda: lit().sample(2, y=1, guidance=ClassifierFree(3.0), progress=False)) == []
    assert notices(lambda: lit(classes=None, drop=0.0).sample(2, progress=False)) == []
    assert notices(lambda: lit(drop=0.0).sample(2, y=1, guidance=ClassifierFree(1.0), progress=False)) == []


def test_a_model_of_classes_without_y_is_noticed():
    [reported] = notices(lambda: lit().sample(2, progress=False))
    assert reported == "y is not given: the images are drawn without a class"
    [reported] = notices(lambda: lit(drop=0.0).sample(2, progress=False))
    assert reported.endswith(", for which this network was not trained (conditioning.label.drop=0)")


@pytest.mark.parametrize("own", [False, True])
def test_guidance_without_trained_drops_is_noticed(own):
    guidance = ClassifierFree(3.0)
    model = lit(drop=0.0, guidance=guidance if own else None)
    [reported] = notices(lambda: model.sample(2, y=1, guidance=None if own else guidance, progress=False))
    assert reported == (
        "guidance.scale=3 compares with images without a class, for which this network was not trained "
        "(conditioning.label.drop=0): use guidance.scale=1, or train with conditioning.label.drop=0.1"
    )


@pytest.mark.parametrize("steps", [2.5, "5", True])
def test_steps_are_a_whole_number(steps):
    with pytest.raises(UserError, match=f"sampler.steps={steps!r}: expected a whole number, 1 or more, or null"):
        lit().sample(1, y=1, sampler=DDIM(steps=steps), progress=False)
    assert len(DDIM(steps=np.int64(5)).times(schedule.cosine(100))) == 6
