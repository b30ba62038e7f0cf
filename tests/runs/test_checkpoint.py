"""Which weights a checkpoint gives: the first average, the raw ones, an average by name, or a width made afterwards."""

import json

import pytest
import torch
from omegaconf import OmegaConf

import diffusion
from diffusion.commands import cli
from diffusion.ground.errors import UserError
from diffusion.runs import compose as configs
from diffusion.training.callbacks.ema import EMA
from diffusion.training.trainer import callbacks

WORDS = [
    "dataset=digits",
    "dataset.batch_size=16",
    "network=unet_tiny",
    "network.widths=[16,32]",
    "callbacks.preview.n=0",
]
WORDS += ["dataset.val_images=16", "logger=none", "optimizer.lr=1e-2", "strategy=cpu"]
KEY = "denoiser.network.conv_in.weight"


def run(command, *overrides):
    """A command as a user says it, in this process."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DIFFUSION_RUN_DIR", "")  # so that what the command puts there is gone afterwards
        environment.delenv("DIFFUSION_RUN_DIR")
        return cli.main(command, [str(word) for word in overrides])


@pytest.fixture(scope="module")
def power(tmp_path_factory):
    """A run of 40 steps with two power averages, stopped and resumed half-way."""
    folder = tmp_path_factory.mktemp("runs") / "power"
    for steps in 20, 40:
        assert run("train", *WORDS, "ema=power", f"run.dir={folder}", "resume=auto", f"trainer.max_steps={steps}") == 0
    return folder


@pytest.fixture(scope="module")
def half_lives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "half_lives"
    overrides = ["experiment=digits", *WORDS, "ema=half_life", "ema.half_life=[50,5000]", "trainer.max_steps=8"]
    assert run("train", *overrides, f"run.dir={folder}") == 0
    return folder


def weights(ckpt, which):
    return diffusion.load(ckpt, weights=which).state_dict()[KEY]


def saved(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def test_half_lives_by_name(half_lives):
    averages = saved(half_lives)["averages"]
    assert list(averages) == ["half_life_50", "half_life_5000"]
    for name, average in averages.items():
        assert torch.equal(weights(half_lives, name), average[KEY])
    assert torch.equal(weights(half_lives, "ema"), averages["half_life_50"][KEY])
    assert not torch.equal(averages["half_life_50"][KEY], saved(half_lives)["state_dict"][KEY])


def test_half_lives_count_the_images_of_an_optimiser_step(tmp_path):
    config = configs.compose("train", [*WORDS, "ema=half_life", "trainer.accumulate=3"])
    made = callbacks(OmegaConf.to_container(config, resolve=True), tmp_path)
    assert [callback.batch_size for callback in made.values() if isinstance(callback, EMA)] == [16 * 3]


def test_power_averages_by_name(power):
    averages = saved(power)["averages"]
    assert list(averages) == ["power_0.1", "power_0.05"]
    assert torch.equal(weights(power, "power_0.05"), averages["power_0.05"][KEY])
    assert torch.equal(weights(power, "ema"), averages["power_0.1"][KEY])
    assert not torch.equal(averages["power_0.05"][KEY], averages["power_0.1"][KEY])


def test_snapshots_go_on_after_a_resume(power):
    taken = [int(file.stem) for file in sorted((power / "checkpoints" / "averages").iterdir())]
    assert taken == list(range(2, 42, 2))


def test_a_number_is_a_width(power):
    stored, between = weights(power, "power_0.05"), weights(power, 0.08)
    assert (weights(power, 0.05) - stored).abs().max() < 1e-6
    assert 1e-5 < (between - stored).abs().max() < (weights(power, "power_0.1") - stored).abs().max()


def test_a_checkpoint_without_its_snapshots_reports_what_is_missing(power, tmp_path):
    alone = tmp_path / "alone.ckpt"
    alone.write_bytes((power / "checkpoints" / "last.ckpt").read_bytes())
    assert torch.equal(weights(alone, "power_0.1"), weights(power, "power_0.1"))
    with pytest.raises(UserError, match="0 snapshots before step 40"):
        weights(alone, 0.03)


def test_sample_takes_names_and_widths(power, tmp_path):
    drawn = {}
    for which in "0.08", "power_0.1", "ema":
        output = tmp_path / which
        overrides = [f"ckpt={power}", "n=1", "sampler=ddim", "sampler.steps=3", f"weights={which}", f"output={output}"]
        assert run("sample", *overrides) == 0
        drawn[which] = (output / "images" / "000000.png").read_bytes()
    assert json.loads((tmp_path / "0.08" / "samples.json").read_text())["weights"] == 0.08
    assert drawn["power_0.1"] == drawn["ema"] != drawn["0.08"]


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("em", "weights=em: * has ema, raw, half_life_50, half_life_5000"),
        ("power_0.1", "weights=power_0.1: * has ema, raw, half_life_50, half_life_5000"),
        ("0.08", "weights=0.08: a width needs a run trained with ema=power; there are half_life_50, half_life_5000"),
    ],
)
def test_weights_that_are_not_there_are_refused_in_one_line(half_lives, which, message, tmp_path, capsys):
    assert run("sample", f"ckpt={half_lives}", f"weights={which}", f"output={tmp_path / 'out'}") == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    start, _, end = message.partition("*")
    assert line.startswith(f"error: {start}")
    assert line.endswith(end)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("which", "message"), [("0.01", "widths from "), ("0.9", "sigma_rel=0.9 is not between 0 and 0.288")]
)
def test_a_width_out_of_reach_is_refused_in_one_line(power, which, message, capsys):
    assert run("sample", f"ckpt={power}", f"weights={which}") == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not (power / "generated").exists()


def test_other_widths_cannot_join_a_run(power, capsys):
    overrides = [*WORDS, f"run.dir={power}", "resume=auto", "trainer.max_steps=50"]
    assert run("train", *overrides, "ema=power", "ema.sigma_rel=[0.2,0.05]") == 2
    assert "has power_0.1, power_0.05 and not power_0.2, power_0.05" in capsys.readouterr().err
    assert saved(power)["global_step"] == 40
