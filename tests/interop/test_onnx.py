"""The exported network says what the denoiser says, for a batch of any size and the paper's t."""

import sys

import pytest
import torch

from diffusion.config import registry, upgrades
from diffusion.data.base import labelled
from diffusion.ground.errors import UserError
from diffusion.ground.files import json_contents
from diffusion.interop import onnx
from diffusion.runs import checkpoint
from diffusion.runs import compose as configs

runtime = pytest.importorskip("onnxruntime")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def ours(*overrides):
    overrides = ["dataset=digits", "network=unet_tiny", "network.widths=[8,16]", *overrides]
    config = configs.OmegaConf.to_container(configs.compose("train", overrides), resolve=True)
    if "label" in config["conditioning"]:
        config["conditioning"]["label"]["classes"] = ["a", "b", "c"]
    model = checkpoint.model_of(config, "test").eval()
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize(
    "overrides",
    [
        ["network.attention=[]", "network.mid_attention=false", "prediction=edm"],
        ["network.patch=2", "network.attention=[2]", "conditioning=label", "self_conditioning=true", "loss=hybrid"],
    ],
    ids=" ".join,
)
def test_onnxruntime_gives_the_same(overrides, tmp_path, recwarn):
    model = ours(*overrides)
    onnx.write(model, tmp_path / "model.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert [str(warning.message) for warning in recwarn] == []

    session = runtime.InferenceSession(tmp_path / "model.onnx")
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["diffusion.format"] == str(upgrades.FORMAT)
    assert registry.resolved(json_contents(metadata["diffusion.config"]), "x") == model.config
    for t in [1.0], [1.0, 2.5, 500.0, 999.0, 1000.0]:
        inputs = {"x_t": torch.randn(len(t), 1, 8, 8), "t": torch.tensor(t)}
        if model.classes:
            inputs["y"] = torch.tensor([-1, 0, 1, 2, 0][: len(t)])
            inputs["x_0_before"] = torch.randn(len(t), 1, 8, 8)
        assert [given.name for given in session.get_inputs()] == list(inputs)
        [got] = session.run(["output"], {name: value.numpy() for name, value in inputs.items()})
        with torch.no_grad():
            previous = {"previous": inputs["x_0_before"]} if model.classes else {}
            condition = labelled(inputs["y"]).also(**previous) if model.classes else None
            expected = model.denoiser.output(inputs["x_t"], inputs["t"], condition)
        assert expected.std() > 0.1
        torch.testing.assert_close(torch.from_numpy(got), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"needs the package {package}: pip install -e '\.\[onnx\]'"):
        onnx.write(ours(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_condition_that_has_no_input_is_refused(tmp_path):
    config = ours("conditioning=vector").config
    config["conditioning"]["vector"] |= {key: [1.0] for key in ("mean", "std", "low", "high")}
    with pytest.raises(UserError, match="to=onnx: there is no input for the condition vector of this network"):
        onnx.write(checkpoint.model_of(config, "test"), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []
