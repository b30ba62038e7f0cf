"""The schedulers of diffusers, both ways."""

import json

import diffusers
import pytest
import torch

from diffusion import clipping
from diffusion.interop import diffusers as interop
from diffusion.runs.groups import choice
from tests.interop.diffusers_models import OURS, SCHEDULER, check_same, converted, ours, pipeline

pytestmark = pytest.mark.filterwarnings("ignore:alpha_bar_T", "ignore::FutureWarning", "ignore::DeprecationWarning")

SCHEDULERS = {
    "linear": {},
    "100 steps, which are another curve than ours of 100": {"num_train_timesteps": 100},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "scaled_linear, 80 steps": {"beta_schedule": "scaled_linear", "num_train_timesteps": 80},
    "cosine, v": {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"},
    "sigmoid, x_0": {"beta_schedule": "sigmoid", "prediction_type": "sample"},
    "betas": {"trained_betas": [0.01 * k for k in range(1, 41)], "num_train_timesteps": 40},
    "zero terminal SNR": {
        "rescale_betas_zero_snr": True,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    },
    "unclipped, linspace": {"clip_sample": False, "prediction_type": "sample", "timestep_spacing": "linspace"},
    "dynamic": {"thresholding": True, "sample_max_value": 1e6, "prediction_type": "v_prediction"},
    "thresholding that is clipping": {"thresholding": True},
    "fixed_small_log": {"variance_type": "fixed_small_log"},
    "fixed_large": {"variance_type": "fixed_large"},
    "ddim": {"kind": "DDIMScheduler", "clip_sample": False, "prediction_type": "v_prediction"},
}


@pytest.mark.parametrize("settings", SCHEDULERS.values(), ids=SCHEDULERS)
def test_schedulers(settings, tmp_path):
    theirs = pipeline(**settings)
    theirs.save_pretrained(tmp_path)
    model = converted(tmp_path)
    check_same(theirs, model)
    interop.write(model, tmp_path / "back")
    back = diffusers.DDPMPipeline.from_pretrained(tmp_path / "back")
    torch.testing.assert_close(back.scheduler.alphas_cumprod, theirs.scheduler.alphas_cumprod, atol=1e-6, rtol=1e-4)


def test_learned_variance(tmp_path):
    theirs = pipeline(OURS | {"out_channels": 6}, variance_type="learned_range")
    theirs.save_pretrained(tmp_path)
    model = converted(tmp_path)
    assert model.objective.learns_variance
    check_same(theirs, model)
    interop.write(model, tmp_path / "back")
    check_same(diffusers.DDPMPipeline.from_pretrained(tmp_path / "back"), model)


def test_their_noise_in_the_last_step_is_not_asked_for(tmp_path):
    """Trailing times end above 0, where a DDPMScheduler adds fixed_large noise to the finished image."""
    interop.write(ours("sampler.variance=fixed_large"), tmp_path / "large")
    interop.write(ours("sampler.variance=fixed_small"), tmp_path / "small")
    spacings = [
        json.loads((tmp_path / name / SCHEDULER).read_text())["timestep_spacing"] for name in ("large", "small")
    ]
    assert spacings == ["leading", "trailing"]


def test_a_model_alone_has_their_default_scheduler(saved, capsys):
    read = interop.read(saved / "unet")
    assert read.config["schedule"] == choice("schedule", "linear")
    assert read.config["clipping"] == choice("clipping", "static")


def test_dynamic_clipping_is_kept(tmp_path):
    interop.write(ours("clipping=dynamic", "clipping.percentile=0.9"), tmp_path / "made")
    model = converted(tmp_path / "made")
    assert model.clip == clipping.Dynamic(0.9)
