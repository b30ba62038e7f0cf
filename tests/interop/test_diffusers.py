"""diffusers' folders, both ways: the same numbers with the same weights, the same images from the same noise."""

import copy
import functools
import json
import os
import shutil

import diffusers
import pytest
import safetensors.torch
import torch

from diffusion import clipping
from diffusion.clipping import Clip
from diffusion.ground.errors import UserError
from diffusion.interop import diffusers as interop
from diffusion.interop import foreign
from diffusion.runs import checkpoint
from diffusion.runs import compose as configs
from diffusion.runs.groups import choice

pytestmark = pytest.mark.filterwarnings("ignore:alpha_bar_T", "ignore::FutureWarning", "ignore::DeprecationWarning")
STEPS = 10
ATTENTION = ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D")
# google/ddpm-cifar10-32 and google/ddpm-celebahq-256, with fewer channels and pixels.
CIFAR10 = {
    "act_fn": "silu",
    "attention_head_dim": None,
    "block_out_channels": [16, 32, 32, 32],
    "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "in_channels": 3,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 8,
    "out_channels": 3,
    "sample_size": 16,
    "time_embedding_type": "positional",
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}
CELEBAHQ = CIFAR10 | {
    "block_out_channels": [16, 16, 24, 24, 32, 32],
    "down_block_types": ["DownBlock2D"] * 4 + ["AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D"] + ["UpBlock2D"] * 4,
    "sample_size": 32,
}
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


def in_the_old_layout(folder):
    """As the models of 2022 were published: all files in one folder, attention by its former names."""
    state = safetensors.torch.load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for new, old in former.items():
        state = {name.replace(f".{new}.", f".{old}."): weight for name, weight in state.items()}
    assert any(".proj_attn." in name for name in state)
    torch.save(state, folder / "diffusion_pytorch_model.bin")
    shutil.move(folder / "unet" / "config.json", folder / "config.json")
    shutil.move(folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json")
    shutil.rmtree(folder / "unet")
    shutil.rmtree(folder / "scheduler")


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


@pytest.mark.parametrize("settings", [CIFAR10, CELEBAHQ], ids=["cifar10", "celebahq"])
@pytest.mark.parametrize("old", [False, True], ids=["today", "of 2022"])
def test_published_models(settings, old, tmp_path):
    theirs = pipeline(settings, variance_type="fixed_large")
    theirs.save_pretrained(tmp_path)
    if old:
        in_the_old_layout(tmp_path)
        again = diffusers.UNet2DModel.from_pretrained(tmp_path)
        x = torch.randn(1, 3, settings["sample_size"], settings["sample_size"])
        assert torch.equal(again(x, 5).sample, theirs.unet(x, 5).sample)  # theirs reads it so as well
    check_same(theirs, converted(tmp_path))


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


def ours(*overrides):
    """A model of ours with random weights."""
    overrides = ["dataset=digits", "network=unet_tiny", "network.widths=[16,32]", *overrides]
    config = configs.OmegaConf.to_container(configs.compose("train", overrides), resolve=True)
    model = checkpoint.model_of(config, "test")
    randomised(model.denoiser)
    return model.eval()


@pytest.mark.parametrize(
    "overrides",
    [
        ["sampler.times=leading"],
        ["schedule=cosine", "prediction=v", "sampler.variance=fixed_large", "sampler.times=leading", "clipping=none"],
        ["schedule=vp", "prediction=x_0", "clipping=dynamic"],
        ["schedule.T=50", "network.head_width=8", "network.attention=[8]"],
        ["loss=hybrid", "sampler.times=leading", "schedule=laplace", "network.mid_attention=false"],
        ["schedule.zero_terminal_snr=true", "prediction=v", "weighting=snr"],
    ],
    ids=" ".join,
)
def test_ours_as_a_pipeline(overrides, tmp_path):
    model = ours(*overrides)
    interop.write(model, tmp_path / "made")
    theirs = diffusers.DDPMPipeline.from_pretrained(tmp_path / "made")
    theirs.set_progress_bar_config(disable=True)
    check_same(theirs, model)

    read = interop.read(tmp_path / "made")
    assert all(torch.equal(read.weights[name], w) for name, w in model.denoiser.network.state_dict().items())
    assert read.config["network"] == model.config["network"]


def test_names_are_those_of_the_published_models(tmp_path):
    """Some of them by hand, from google/ddpm-cifar10-32."""
    model = ours()
    table = interop.names(model.denoiser.network.state_dict())
    for theirs, name in {
        "conv_in.weight": "conv_in.weight",
        "time_embedding.linear_1.bias": "time_embedding.linear_1.bias",
        "down_blocks.0.resnets.0.norm1.weight": "down.0.residuals.0.norm_1.weight",
        "down_blocks.0.downsamplers.0.conv.bias": "down.0.resample.bias",
        "down_blocks.1.resnets.0.conv_shortcut.weight": "down.1.residuals.0.shortcut.weight",
        "mid_block.attentions.0.group_norm.weight": "middle.1.norm.weight",
        "mid_block.attentions.0.to_k.bias": "middle.1.qkv.bias",
        "mid_block.resnets.1.time_emb_proj.weight": "middle.2.embedding.weight",
        "up_blocks.0.upsamplers.0.conv.weight": "up.0.resample.weight",
        "up_blocks.0.attentions.1.to_out.0.weight": "up.0.attentions.1.out.weight",
        "conv_norm_out.weight": "norm_out.weight",
        "conv_out.bias": "conv_out.bias",
    }.items():
        assert table[theirs] == name


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["network.patch=2", "network.attention=[2]"], "network.patch=2 cannot be expressed, only 1"),
        (["prediction=edm"], "no prediction EDM"),
        (["loss=hybrid", "sampler.variance=fixed_small"], "cannot express sampler.variance=fixed_small"),
        (["self_conditioning=true"], "gives its network no condition, but this one takes previous"),
    ],
    ids=str,
)
def test_settings_that_diffusers_lacks_are_rejected(overrides, message, tmp_path):
    with pytest.raises(UserError, match=r"^to=diffusers: ") as refused:
        interop.write(ours(*overrides), tmp_path / "made")
    assert message in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_their_noise_in_the_last_step_is_not_asked_for(tmp_path):
    """Trailing times end above 0, where a DDPMScheduler adds fixed_large noise to the finished image."""
    interop.write(ours("sampler.variance=fixed_large"), tmp_path / "large")
    interop.write(ours("sampler.variance=fixed_small"), tmp_path / "small")
    spacings = [
        json.loads((tmp_path / name / SCHEDULER).read_text())["timestep_spacing"] for name in ("large", "small")
    ]
    assert spacings == ["leading", "trailing"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def changed(saved, tmp_path):
    """A copy of the folder whose JSON files say what is given."""

    def change(file, **values):
        shutil.copytree(saved, tmp_path / "copy")
        path = tmp_path / "copy" / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return tmp_path / "copy"

    return change


UNET, SCHEDULER = "unet/config.json", "scheduler/scheduler_config.json"


@pytest.mark.parametrize(
    ("file", "name", "value"),
    [
        (UNET, "act_fn", "mish"),
        (UNET, "attn_norm_num_groups", 4),
        (UNET, "center_input_sample", True),
        (UNET, "class_embed_type", "timestep"),
        (UNET, "down_block_types", ["DownBlock2D", "ResnetDownsampleBlock2D", "DownBlock2D"]),
        (UNET, "down_block_types", ["DownBlock2D"] * 3),
        (UNET, "downsample_type", "resnet"),
        (UNET, "mid_block_scale_factor", 2),
        (UNET, "mid_block_type", None),
        (UNET, "num_class_embeds", 10),
        (UNET, "out_channels", 6),
        (UNET, "resnet_time_scale_shift", "scale_shift"),
        (UNET, "sample_size", [16, 8]),
        (UNET, "sample_size", None),
        (UNET, "time_embedding_dim", 32),
        (UNET, "time_embedding_type", "fourier"),
        (UNET, "upsample_type", "resnet"),
        (UNET, "something_new", 1),
        (UNET, "_class_name", "UNet2DConditionModel"),
        (SCHEDULER, "_class_name", "KarrasVeScheduler"),
        (SCHEDULER, "beta_schedule", "laplace"),
        (SCHEDULER, "clip_sample_range", 2.0),
        (SCHEDULER, "prediction_type", "flow_prediction"),
        (SCHEDULER, "sample_max_value", 1.5),
        (SCHEDULER, "steps_offset", 1),
        (SCHEDULER, "variance_type", "fixed_large_log"),
        (SCHEDULER, "variance_type", "learned_range"),
        (SCHEDULER, "something_new", 1),
    ],
)
def test_settings_that_this_package_lacks_are_rejected_by_name(changed, file, name, value):
    folder = changed(file, **{name: value}, **({"thresholding": True} if name == "sample_max_value" else {}))
    with pytest.raises(UserError) as refused:
        interop.read(folder)
    assert "\n" not in str(refused.value)
    assert (value if name == "_class_name" else name) in str(refused.value)


@pytest.mark.parametrize("value", [None, "x", [], {}, 1e400, [None]], ids=str)
@pytest.mark.parametrize("name", ["block_out_channels", "layers_per_block", "sample_size", "norm_eps", "in_channels"])
def test_an_odd_config_is_rejected_with_a_message(changed, name, value):
    folder = changed(UNET, **{name: value})
    with pytest.raises(UserError):
        foreign.write(interop.read(folder), folder / "made.ckpt")


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\xff", '{"_class_name": 1}', "{}"])
@pytest.mark.parametrize("file", [UNET, SCHEDULER])
def test_broken_json(changed, file, text):
    folder = changed(file)
    (folder / file).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=file.rpartition("/")[2]):
        interop.read(folder)


def test_a_model_alone_has_their_default_scheduler(saved, capsys):
    read = interop.read(saved / "unet")
    assert read.config["schedule"] == choice("schedule", "linear")
    assert read.config["clipping"] == choice("clipping", "static")


def weights_of(folder):
    return folder / "unet" / "diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("conv_in.bias"), "weights are missing: conv_in.bias"),
        (lambda state: state.update({"more.weight": torch.zeros(1)}), "does not have: more.weight"),
        (lambda state: state.update({"conv_in.bias": torch.zeros(17)}), r"conv_in.bias has the shape \[17\]"),
        (lambda state: state.update({"conv_in.bias": torch.zeros(1, 16)}), "conv_in.bias has the shape"),
    ],
)
def test_weights_that_do_not_fit(changed, change, message):
    folder = changed(UNET)
    state = safetensors.torch.load_file(weights_of(folder))
    change(state)
    safetensors.torch.save_file(state, weights_of(folder))
    with pytest.raises(UserError, match=message):
        interop.read(folder)


def test_half_precision_is_read_as_float32(changed):
    folder = changed(UNET)
    state = safetensors.torch.load_file(weights_of(folder))
    safetensors.torch.save_file({name: weight.half() for name, weight in state.items()}, weights_of(folder))
    read = interop.read(folder).weights
    assert {weight.dtype for weight in read.values()} == {torch.float32}
    assert torch.equal(read["conv_in.bias"], state["conv_in.bias"].half().float())


class Writes:
    """Unpickled, it would run a command that writes the file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("hide", [lambda trap: trap, lambda trap: {"conv_in.weight": trap}, lambda trap: [trap]])
def test_a_pickle_is_not_run(changed, tmp_path, hide):
    folder = changed(UNET)
    weights_of(folder).unlink()
    torch.save(hide(Writes(tmp_path / "written")), folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError, match="not a readable file of weights"):
        interop.read(folder)
    assert not (tmp_path / "written").exists()


@pytest.mark.parametrize("contents", [None, [], {"conv_in.weight": 3}, {1: torch.zeros(1)}, torch.zeros(2)], ids=str)
def test_a_file_that_holds_no_weights(changed, contents):
    folder = changed(UNET)
    weights_of(folder).unlink()
    torch.save(contents, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(UserError):
        interop.read(folder)


def test_no_weights(changed):
    folder = changed(UNET)
    weights_of(folder).write_bytes(weights_of(folder).read_bytes()[:-5])
    with pytest.raises(UserError, match="not a readable file of weights"):
        interop.read(folder)
    weights_of(folder).unlink()
    with pytest.raises(UserError, match=r"expected diffusion_pytorch_model.safetensors or diffusion_pytorch_model.bin"):
        interop.read(folder)


def test_dynamic_clipping_is_kept(tmp_path):
    interop.write(ours("clipping=dynamic", "clipping.percentile=0.9"), tmp_path / "made")
    model = converted(tmp_path / "made")
    assert model.clip == clipping.Dynamic(0.9)
