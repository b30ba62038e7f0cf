"""wandb, matplotlib and scikit-learn are imported by what asks for them: everything else works without them."""

import os
import subprocess
import sys
from pathlib import Path

# Lightning imports torchmetrics, and that matplotlib, whether or not anybody draws: what it has brought along is
# forgotten, and from then on the three cannot be imported.
CODE = """
import importlib, pkgutil, sys
import lightning.pytorch
from PIL import Image

REFUSED = ("wandb", "matplotlib", "sklearn")
for name in [*sys.modules]:
    if name.partition(".")[0] in REFUSED:
        del sys.modules[name]
sys.modules.update(dict.fromkeys(REFUSED))

import diffusion
from diffusion.commands import cli

for module in pkgutil.walk_packages(diffusion.__path__, "diffusion."):
    if not module.name.endswith(".__main__"):
        importlib.import_module(module.name)

for split in ("train", "val"):
    for k in range(8):
        Image.new("L", (8, 8), 30 * k).save(f"{split}{k}.png")
small = ["dataset.batch_size=4", "network=unet_tiny", "network.widths=[8,16]", "schedule.T=4", "strategy=cpu",
         "trainer.max_steps=1"]
pictures = ["dataset=image_folder", "dataset.path=.", "dataset.size=8", "dataset.channels=1", "dataset.cache=cache",
            "dataset.val_fraction=0.5"]
bare = ["callbacks=none", "logger=none"]

assert cli.main("train", [*small, *pictures, *bare, "run.dir=run"]) == 0
assert cli.main("sample", ["ckpt=run", "n=2", "output=drawn"]) == 0
assert cli.main("convert", ["ckpt=run", "to=safetensors", "output=small.safetensors"]) == 0
assert diffusion.load("run").sample(1, seed=0).shape == (1, 1, 8, 8)
print("all without them", file=sys.stderr)

# So that the above can fail: what asks for one of them.
for asks in ["logger=wandb", "callbacks=default", "dataset=digits"]:
    given = {word.partition("=")[0]: word for word in [*bare, *(pictures if "dataset" not in asks else []), asks]}
    try:
        cli.main("train", [*small, *given.values(), f"run.dir={asks[-5:]}"])
    except ImportError as error:
        print(error, file=sys.stderr)
"""


def test_only_what_asks_for_them_imports_them(tmp_path):
    paths = [str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    line = [sys.executable, "-c", CODE]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    asked = done.stderr.partition("all without them\n")[2]
    for name in ("wandb", "matplotlib", "scikit-learn"):
        assert name in asked
