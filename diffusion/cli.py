"""The command line: `python train.py`, `sample.py`, `evaluate.py` and `convert.py`.

Options, help, sweeps and exit codes live here; `config.py` turns the words into a config. Nothing heavy is imported
before the words have been found right: `--help` and a typing mistake answer at once.
"""

import importlib
import io
import itertools
import os
import subprocess
import sys
import traceback
from collections.abc import Sequence
from typing import BinaryIO

from omegaconf import OmegaConf

from diffusion import config as configs
from diffusion.errors import UserError, memory_wanted
from diffusion.typed import items

OPTIONS = {
    "--help": "-h: this page",
    "--print": "show the whole config as YAML and stop",
    "--multirun": "-m: several values, one run each, such as seed=1,2,3",
}
SHORT = {"-h": "--help", "-m": "--multirun"}

# What to lower when the memory of the CPU or the GPU does not suffice.
_LESS_MEMORY = {
    "train": "lower dataset.batch_size, and raise trainer.accumulate as much for as many images a step; if it was a "
    "preview, lower preview.n",
    "sample": "lower batch_size",
    "compare": "lower batch_size",
    "evaluate": "lower batch_size",
}

PAGES = {
    "train": """\
Train a diffusion model.

usage: python train.py [OPTION] [GROUP=CHOICE] [KEY=VALUE] ...

  python train.py                                        MNIST, a small network, the paper's linear schedule
  python train.py dataset=digits network=unet_tiny       handwritten digits of 8x8, no download
  python train.py dataset=image_folder dataset.path=my/pictures dataset.size=32
  python train.py dataset=arrays dataset.path=my/arrays  floats of any shape: train/x.npy (N, C, H, W), val/x.npy
  python train.py schedule=cosine trainer.max_minutes=10
  python train.py run.name=first resume=auto             go on where the run `first` stopped
  python train.py -m schedule=linear,cosine seed=1,2     four runs, one after the other

keys:
  dataset.path          folder of the data
  trainer.max_steps     optimiser steps; training ends at the first limit reached
  trainer.max_minutes   the same in minutes
  validate.every_n_steps  or every_n_minutes, every_n_epochs; without, validations take at most a tenth of the time
  preview.every_n_steps   the same for pictures; without, each validation has some
  seed                  another seed, another network and other noise
  run.name              the run folder is runs/<dataset>/<name> instead of runs/<dataset>/<time>-<id>
  run.dir               the run folder itself
  resume                auto, a run folder or a checkpoint
  resume_mode           full, or weights: a new run that begins with the checkpoint's weights alone
  rerun                 a run folder, whose config is repeated in a new one
""",
    "sample": """\
Draw images from a trained model.

usage: python sample.py ckpt=RUN_FOLDER [OPTION] [GROUP=CHOICE] [KEY=VALUE] ...

  python sample.py ckpt=runs/mnist/first                 64 images and their grid
  python sample.py ckpt=runs/mnist/first n=16 seed=1 output=my/samples
  python sample.py ckpt=runs/mnist/first/best sampler=ddim sampler.steps=50
  python sample.py ckpt=runs/mnist/first keep=every:100  pictures of the states on the way as well
  python sample.py ckpt=runs/digits/labels y=[7,3]       of these classes

keys:
  ckpt                  a run folder, RUN_FOLDER/last, RUN_FOLDER/best, or a checkpoint file
  n                     number of images
  seed                  the same seed draws the same images, in batches of any size
  y                     a class by its name, a list of them, or all; short for condition.label
  condition.vector      the numbers that a network of conditioning=vector is given, such as [0.5]
  output                folder: its images/ holds the samples, grid.png shows them
  batch_size            images at a time
  sampler.steps         steps of the reverse process
  weights               ema, raw, the name of an average, or a width such as 0.08 (ema=power)
  keep                  states that strip.png and states.gif show: the last k, all, or every:k
  npz                   true: all images as one uint8 array as well
""",
    "compare": """\
Compare samplers and numbers of steps in one picture, from the same noise.

usage: python compare.py ckpt=RUN_FOLDER [OPTION] [GROUP=CHOICE] [KEY=VALUE] ...

  python compare.py ckpt=runs/mnist/first                six samplers at 5 to 1000 steps
  python compare.py ckpt=runs/mnist/first samplers=[ddim,unipc] steps=[10,20] n=9 seed=1
  python compare.py ckpt=runs/digits/labels y=[7,3] guidance.scale=3
  python compare.py ckpt=runs/mnist/first task=img2img task.image=photo.png

keys:
  samplers              a row each
  steps                 a column each
  n                     number of images in a cell
""",
    "evaluate": """\
Measure a trained model on the validation images of its data set.

usage: python evaluate.py ckpt=RUN_FOLDER [OPTION] [GROUP=CHOICE] [KEY=VALUE] ...

  python evaluate.py ckpt=runs/mnist/first metric=bpd    the variational bound in bits per dimension, estimated
  python evaluate.py ckpt=runs/mnist/first metric.n=null metric.steps=null   all images and all T terms
  python evaluate.py ckpt=runs/mnist/first/best dataset.path=my/data output=my/numbers

keys:
  ckpt                  a run folder, RUN_FOLDER/last, RUN_FOLDER/best, or a checkpoint file
  dataset.path          folder of the data, where it is not that of the training
  weights               ema, raw, the name of an average, or a width such as 0.08 (ema=power)
  seed                  other noise
  output                folder for results.jsonl, a line a measurement, instead of RUN_FOLDER/evaluation
  batch_size            images at a time; the number does not depend on it
  metric.n              validation images
  metric.steps          network evaluations per image
  metric.variance       auto, fixed_small or fixed_large
""",
    "convert": """\
Make a checkpoint of another program's model, or write a trained model for other programs.

usage: python convert.py from=FOLDER_OR_FILE [output=FILE]
       python convert.py ckpt=RUN_FOLDER to=FORMAT [weights=ema] [output=PATH]

  python convert.py from=my/ddpm-cifar10-32              a folder of diffusers: makes my/ddpm-cifar10-32.ckpt
  python convert.py from=64x64_diffusion.pt              a file of OpenAI's guided- or improved-diffusion
  python convert.py from=results/model-10.pt size=32     a file of lucidrains' Trainer, which does not tell the size
  python convert.py ckpt=runs/mnist/first to=diffusers   a folder that DDPMPipeline.from_pretrained loads
  python convert.py ckpt=runs/mnist/first to=onnx weights=raw output=network.onnx

keys:
  from                  a folder or file of another program; nothing in it is executed
  ckpt                  a run folder, RUN_FOLDER/last, RUN_FOLDER/best, or a checkpoint file
  to                    diffusers, onnx, or safetensors (which from= reads again)
  weights               of ckpt: ema, raw, the name of an average, or a width such as 0.08 (ema=power)
  size                  of the images, where from= does not tell
  schedule              of OpenAI's models that are not the published ones: linear or cosine
  T                     their steps
  heads                 their heads of every attention, or:
  head_width            their channels of a head
  order                 of their q, k and v: heads_first, or qkv_first (use_new_attention_order)
  rescale_timesteps     of them too: true where the network is told t * 1000 / T
  output                what to make, instead of FROM.ckpt or RUN_FOLDER/converted/...; it must not exist
""",
}


def train() -> int:
    """Entry point of train.py and diffusion-train. Returns the exit code: 0, 1 (a failed sweep job), 2 or 130."""
    return main("train", sys.argv[1:])


def sample() -> int:
    """Entry point of sample.py and diffusion-sample. Returns the exit code, as `train` does."""
    return main("sample", sys.argv[1:])


def evaluate() -> int:
    """Entry point of evaluate.py and diffusion-evaluate. Returns the exit code, as `train` does."""
    return main("evaluate", sys.argv[1:])


def compare() -> int:
    """Entry point of compare.py and diffusion-compare. Returns the exit code, as `train` does."""
    return main("compare", sys.argv[1:])


def convert() -> int:
    """Entry point of convert.py and diffusion-convert. Returns the exit code, as `train` does."""
    return main("convert", sys.argv[1:])


def main(command: str, words: Sequence[str]) -> int:
    """Runs `command` with the words of the command line; a user's mistake is one line on stderr and exit code 2."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that its encoding lacks, as on stderr
    try:
        return _main(command, words)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        mistake = _out_of_memory(command, error) or _mistake(error)
        if mistake is None:
            raise
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exc()
        print(f"error: {' '.join(str(mistake).split())}", file=sys.stderr)
        return 2


def _main(command: str, words: Sequence[str]) -> int:
    options = {_option(word) for word in words if word.startswith("-")}
    words = [word for word in words if not word.startswith("-")]
    if "--help" in options:
        print(help_page(command))
        return 0
    if "--multirun" in options:
        return _multirun(command, words)
    config = configs.compose(command, words)
    if "--print" in options:
        print(OmegaConf.to_yaml(config), end="")
        return 0
    configs.check_complete(config)
    path = importlib.import_module(f"diffusion.commands.{command}").run(config)
    if _is_first_process():
        print(path, flush=True)
    return 0


def help_page(command: str) -> str:
    """Usage, examples, keys, and every group with its choices."""
    groups = configs.groups(command)
    lines = [PAGES[command], *["groups (* is the default):"] * bool(groups)]
    for group in groups.values():
        names = [f"{choice}*" if choice == group.default else choice for choice in group.choices]
        lines.append(f"  {group.key:<21} {', '.join(names) or '(none yet)'}")
    if command == "sample":
        lines.append("  A group that is not chosen stays as it was in training.")
    lines += [*[""] * bool(groups), "options:"]
    lines += [f"  {name:<21} {words}" for name, words in OPTIONS.items()]
    return "\n".join(lines)


def _option(word: str) -> str:
    option = SHORT.get(word, word)
    if option not in OPTIONS:
        raise UserError(f"{word}: no such option; choose one of {', '.join(OPTIONS)}, and write values as key=value")
    return option


def _out_of_memory(command: str, error: BaseException) -> UserError | None:
    """One line that names the key to lower, where that is what broke the command."""
    wanted = memory_wanted(error)
    if wanted is None:
        return None
    asked = f" ({wanted} more were asked for)" if wanted else ""
    return UserError(f"out of memory{asked}: {_LESS_MEMORY.get(command, 'it takes a machine with more')}")


def _mistake(error: BaseException | None) -> UserError | None:
    """The UserError in the chain of causes: Hydra's instantiate wraps what a constructor raises."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


def _is_first_process() -> bool:
    # The names, in the order, by which Lightning tells its processes apart.
    names = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
    return next((os.environ[name] for name in names if name in os.environ), "0") == "0"


def _multirun(command: str, words: Sequence[str]) -> int:
    """Every combination of the comma-separated values, each in a fresh process: no job inherits another's state."""
    jobs = [list(job) for job in itertools.product(*map(_values, words))]
    for job in jobs:  # a mistake in the last job is told before the first one runs
        configs.check_complete(configs.compose(command, job))
    folders, failed = [], 0
    for number, job in enumerate(jobs, 1):
        print(f"[{number}/{len(jobs)}] {' '.join(job)}", flush=True)
        code, folder = _run_job(job)
        failed += code != 0
        folders.append(folder if code == 0 else f"failed, exit code {code}: {' '.join(job)}")
    print("", *folders, sep="\n", flush=True)
    return 1 if failed else 0


def _values(word: str) -> list[str]:
    key, text = configs.split(word)
    if key in configs.LITERAL:  # a comma is part of a path
        return [word]
    if key in configs.RAW and not text.startswith(("range(", "choice(")):
        return [f"{key}={value}" for value in items(text)] or [word]
    override = configs.parse(key, text)
    if not override.is_sweep_override():
        return [word]
    if not override.is_discrete_sweep():
        raise UserError(f"{word}: a sweep needs a list of values, such as {key}=1,2,3")
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _run_job(words: Sequence[str]) -> tuple[int, str]:
    """Runs this script with `words`, passing its output on. Returns the exit code and the last line, the run folder."""
    with subprocess.Popen([sys.executable, sys.argv[0], *words], stdout=subprocess.PIPE) as process:
        try:
            tail = _pass_on(process.stdout)
        except KeyboardInterrupt:
            _pass_on(process.stdout)  # it was interrupted too: hear it out while it writes its checkpoint
            raise
    return process.returncode, tail.decode(errors="replace").rstrip().rpartition("\n")[2]


def _pass_on(stream: BinaryIO) -> bytes:
    """Copies `stream` to stdout as it comes, progress bars included. Returns its end."""
    tail = b""
    while piece := stream.read1():
        sys.stdout.buffer.write(piece)
        sys.stdout.flush()
        tail = (tail + piece)[-10_000:]
    return tail
