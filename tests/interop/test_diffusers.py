"""diffusers' folders, both ways: the same numbers with the same weights, the same images from the same noise."""

import os
import shutil

import diffusers
import pytest
import safetensors.torch
import torch

from diffusion.ground.errors import UserError
from diffusion.interop import diffusers as interop
from tests.interop.diffusers_models import SCHEDULER, UNET, check_same, converted, ours, pipeline

pytestmark = pytest.mark.filterwarnings("ignore:alpha_bar_T", "ignore::FutureWarning", "ignore::DeprecationWarning")
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


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "\xff", '{"_class_name": 1}', "{}"])
@pytest.mark.parametrize("file", [UNET, SCHEDULER])
def test_broken_json(changed, file, text):
    folder = changed(file)
    (folder / file).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=file.rpartition("/")[2]):
        interop.read(folder)


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
