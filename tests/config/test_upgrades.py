"""What a config of an earlier format says today is what it meant then."""

import pytest

from diffusion.config.upgrades import FORMAT, upgraded
from diffusion.ground.errors import UserError


def config_of(config, number=0):
    """Without the space: format 0 had the one."""
    config = upgraded({"format": number, "config": config}, "x.ckpt")["config"]
    assert ("space" in config) == (number == 0)
    return {key: value for key, value in config.items() if key != "space"}


def test_validations_keep_their_epochs():
    old = {
        "trainer": {"max_steps": 7, "val_every_n_epochs": 3},
        "preview": {"n": 4, "every_n_epochs": 2, "sampler": {"steps": 5}},
        "checkpoints": {"every_n_steps": 2, "every_n_minutes": None, "keep": 3},
    }
    never = {"every_n_steps": None, "every_n_minutes": None}
    new = config_of(old)
    assert new["trainer"] == {"max_steps": 7}
    assert new["validate"] == never | {"every_n_epochs": 3}
    assert new["checkpoints"] == {"every_n_steps": 2, "every_n_minutes": None, "every_n_epochs": None, "keep": 3}
    assert config_of(new, FORMAT) == new


def test_weights_are_renamed_wherever_they_are(monkeypatch):
    """In the raw weights, every average and the optimiser's state, which format 0 had by position; the order stays."""
    monkeypatch.setattr("diffusion.config.upgrades._name_from_0", lambda name: name.replace("old", "new"))
    weights = {"b.old": 1, "a": 2}
    state = {"state": {0: "of b", 1: "of a"}, "param_groups": [{"params": [0, 1]}]}
    contents = {"config": {}, "state_dict": weights, "ema_state_dict": weights, "averages": {"x": weights}}
    new = upgraded({**contents, "optimizer_states": [state]}, "x.ckpt")
    for found in new["state_dict"], new["ema_state_dict"], new["averages"]["x"]:
        assert list(found.items()) == [("b.new", 1), ("a", 2)]
    [state] = new["optimizer_states"]
    assert state == {"state": {"b.new": "of b", "a": "of a"}, "param_groups": [{"params": ["b.new", "a"]}]}
    assert list(weights) == ["b.old", "a"], "the contents given are left alone"


def test_what_a_network_was_shown_of_itself_was_clipped_as_samples_are():
    assert config_of({"self_conditioning": True})["self_conditioning_clipping"] is None


@pytest.mark.parametrize(("before", "kernels"), [(True, "auto"), (False, "off")])
def test_compile_was_the_former_key_of_kernels(before, kernels):
    assert config_of({"compile": before}) == {"kernels": kernels, "compile": False}
    assert config_of({"kernels": "auto", "compile": True}, FORMAT) == {"kernels": "auto", "compile": True}


@pytest.mark.parametrize(("before", "now"), [("auto", "auto"), (True, "auto"), (False, "off")])
def test_kernels_were_also_true_or_false(before, now):
    assert config_of({"kernels": before}, 1) == {"kernels": now}


@pytest.mark.parametrize("trainer", [3, "val_every_n_epochs", ["val_every_n_epochs"]])
def test_a_section_that_is_none_is_left_to_those_who_read_it(trainer):
    assert config_of({"trainer": trainer}) == {"trainer": trainer}


def test_values_that_no_version_wrote_are_refused():
    with pytest.raises(UserError, match=r"x\.ckpt: not a file of this program"):
        config_of({"trainer": {"val_every_n_epochs": 1}, "checkpoints": 3})


@pytest.mark.parametrize(
    ("before", "now"), [("log_snr", "log_snr_full"), ("karras", "karras_full"), ("angle", "angle")]
)
def test_times_go_on_to_span_the_whole_schedule(before, now):
    assert config_of({"sampler": {"times": before}}) == {"sampler": {"times": now}}
    assert config_of({"sampler": {"times": [9, 0]}}) == {"sampler": {"times": [9, 0]}}
    assert config_of({"sampler": {"times": before}}, FORMAT) == {"sampler": {"times": before}}


OF_1 = {
    "logger": {"name": "wandb", "mode": "offline"},
    "preview": {"n": 4, "sampler": {"class": "DDIM"}},
    "strategy": {"accelerator": "cpu", "devices": 2, "num_nodes": 1},
}


@pytest.mark.parametrize(
    ("word", "node"),
    [
        ("auto", {}),
        ("ddp", {"_target_": "lightning.pytorch.strategies.DDPStrategy", "find_unused_parameters": False}),
        (
            "ddp_find_unused_parameters_true",
            {"_target_": "lightning.pytorch.strategies.DDPStrategy", "find_unused_parameters": True},
        ),
        ("deepspeed_stage_2", {"_target_": "lightning.pytorch.strategies.DeepSpeedStrategy", "stage": 2}),
    ],
)
def test_of_the_wiring_of_format_1_a_manifest_keeps_the_strategy_and_a_checkpoint_nothing(word, node):
    config = {**OF_1, "strategy": {**OF_1["strategy"], "strategy": word}}
    assert config_of(config, 1) == {}
    manifest = upgraded({"format": 1, "config": config, "sessions": []}, "manifest.json")
    assert manifest["config"] == {"strategy": {**OF_1["strategy"], **node}}


def test_a_strategy_without_a_class_today_is_refused():
    config = {"strategy": {**OF_1["strategy"], "strategy": "ddp_spawn"}}
    with pytest.raises(UserError, match=r"strategy\.strategy=ddp_spawn of format 1 no longer exists"):
        upgraded({"format": 1, "config": config, "sessions": []}, "manifest.json")


def test_each_cosine_of_format_1_is_the_class_of_its_group():
    config = {
        "schedule": {"class": "Cosine", "T": 1000, "log_snr_min": -15.0},
        "lr_schedule": {"class": "Cosine", "steps": 9, "final": 0.0},
    }
    found = upgraded({"format": 1, "config": config}, "x.ckpt")["config"]
    assert found["schedule"]["_target_"] == "diffusion.schedule.ContinuousCosine"
    assert found["lr_schedule"]["_target_"] == "diffusion.optimization.lr_schedule.CosineDecay"


@pytest.mark.parametrize(
    ("limits", "end"),
    [({"max_steps": 9}, None), ({"max_steps": 8}, 9), ({"max_steps": 9, "max_minutes": 3}, 9), ({}, 9)],
)
def test_a_cosine_of_format_0(limits, end):
    rate = {"_target_": "diffusion.optimizers.Cosine", "steps": 9, "final": 0.1}
    config = {"lr_schedule": rate, "trainer": limits, "optimizer": {"warmup_steps": 500}}
    found = upgraded({"config": config}, "x")["config"]
    assert found["lr_schedule"] == {
        "_target_": "diffusion.optimization.lr_schedule.CosineDecay",
        "steps": end,
        "final": 0.1,
    }
    assert found["optimizer"] == {"warmup_steps": 500, "warmup_share": None}
    assert rate["steps"] == 9
