"""`python sample.py`: draws images from a checkpoint into a folder, and returns that folder."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZipFile

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from diffusion import build, checkpoint, images
from diffusion.commands import compare
from diffusion.commands.device import device_of
from diffusion.errors import UserError
from diffusion.files import atomic
from diffusion.lit import LitDiffusion
from diffusion.networks import native
from diffusion.quiet import quiet
from diffusion.tasks.generate import Generate, kept_steps

_GRID = 64  # images in the grid
_COLUMNS = 16  # images of one class in the grid
_STRIP = 8  # images and states in the strip
_FRAMES = 60  # of the GIF


def run(config: DictConfig) -> Path:
    """Samples as the composed `conf/sample.yaml` says. Returns the folder; raises UserError for a user's mistake."""
    quiet()
    config = OmegaConf.to_container(config, resolve=True)
    native.enabled = config["compile"]
    ckpt = checkpoint.find(config["ckpt"])
    model = checkpoint.load(ckpt, config["weights"], device_of(config["accelerator"]))
    sampler, clipping, guidance = (
        _chosen(config, model.config, group) for group in ("sampler", "clipping", "guidance")
    )
    labels = _labels(config["y"], model)
    if labels is None and (config["guidance"] or config["overrides"]["guidance"]):
        raise UserError("guidance leads towards a class: say y=..., of a model trained with conditioning=label")
    settings = {
        "task": config["task"],
        "checkpoint": str(ckpt),
        "weights": config["weights"],
        "weights_sha256": _digest(model),
        "sampler": sampler,
        "clipping": clipping,
        "guidance": guidance,
        "y": labels,
        "seed": config["seed"],
    }
    model.sampler, model.clip = build.instantiate(sampler), build.instantiate(clipping)
    model.guidance = build.instantiate(guidance)
    if config["task"].get("name") == "compare":
        folder = _open(config["output"], ckpt, settings)
        return compare.draw(model, config, folder / "compare.png")
    task = build.instantiate(config["task"], shape=model.shape)
    # What is impossible is found out before there is a folder.
    model.sampler.check(model.denoiser.schedule, model.objective.learns_variance)
    times = task.times(model.sampler, model.denoiser.schedule)
    kept_steps(config["keep"], len(times) - 1)
    folder = _open(config["output"], ckpt, settings)
    seconds = _draw(model, task, labels, config, folder)
    pictures = sorted(folder.glob("[0-9]*.png"))
    images.write_png(folder / "grid.png", _grid(pictures, task, labels, model.classes))
    if config["npz"]:
        with atomic(folder / "samples.npz") as temporary, open(temporary, "wb") as file:
            _write_npz(file, pictures)
    _describe(folder, settings | {"n": len(pictures), "seconds": round(seconds, 3)})
    return folder


def _draw(
    model: LitDiffusion, task: Generate, labels: list[int] | None, config: Mapping[str, Any], folder: Path
) -> float:
    """Draws the images that are not in the folder yet; returns the seconds it took."""
    start = time.perf_counter()
    missing = torch.tensor([i for i in range(config["n"]) if not _picture(folder, i).exists()], dtype=torch.int64)
    options = {"seed": config["seed"], "batch_size": config["batch_size"], "keep": config["keep"]}
    y = None if labels is None else torch.tensor(labels)[missing % len(labels)]
    for index, states in model.sample_batches(missing, task=task, y=y, **options):
        for i, image in zip(index.tolist(), images.to_uint8(states[-1]), strict=True):
            images.write_png(_picture(folder, i), image)
        if len(states) > 1 and index[0] == missing[0]:
            _write_kept(folder, images.to_uint8(states))
    return time.perf_counter() - start


def _labels(y: Any, model: LitDiffusion) -> list[int] | None:
    """The numbers of the classes that `y` asks for, by number or name; image i is of class i modulo their count."""
    names = model.classes
    if y is None:
        return None
    if names is None:
        raise UserError(f"y={y}: this model was trained without classes (conditioning=none)")
    if y == "all":
        return list(range(len(names)))
    labels = [names.index(str(one)) if str(one) in names else one for one in (y if isinstance(y, list) else [y])]
    for label in labels:
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(names):
            known = ", ".join(f"{k} ({name})" if name != str(k) else name for k, name in enumerate(names))
            raise UserError(f"y={label}: no such class; choose among {known}, or all")
    return labels


def _grid(pictures: list[Path], task: Generate, labels: list[int] | None, names: Sequence[str] | None) -> Tensor:
    """The first images side by side; with labels a row for each of them, its name in front."""
    if labels is None:
        return images.grid(_read(pictures[:_GRID]), task.columns)
    rows = [pictures[k :: len(labels)][:_COLUMNS] for k in range(min(len(labels), len(pictures)))]
    whole = len(rows[-1])  # the last row may be the shorter one
    cells = _read([picture for row in rows for picture in row[:whole]])
    return images.grid(cells, columns=whole, names=[names[label] for label in labels[: len(rows)]])


def _write_kept(folder: Path, states: Tensor) -> None:
    """The kept states, uint8 (kept, B, C, H, W), as a strip (an image a row, time to the right) and as a GIF."""
    images.write_png(folder / "strip.png", images.strip(states[images.evenly(len(states), _STRIP), :_STRIP]))
    frames = states[images.evenly(len(states), _FRAMES), : _STRIP**2]
    images.write_gif(folder / "states.gif", [images.grid(frame) for frame in frames])


def _chosen(config: Mapping[str, Any], trained: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The sampler or clipping to use: the one asked for, or that of the training with the values asked for."""
    node = config[group] or trained[group]
    unknown = set(config["overrides"][group]) - set(node)
    if unknown:
        known = ", ".join(f"{group}.{key}" for key in node if key != "_target_") or "none"
        raise UserError(f"{group}.{unknown.pop()}: the checkpoint's {group} has no such key; it has {known}")
    return {**node, **config["overrides"][group]}


def _open(output: str | None, ckpt: Path, settings: Mapping[str, Any]) -> Path:
    """The folder to write to. One that holds other samples is refused; one that holds some of these is completed."""
    folder = (
        Path(output)
        if output
        else checkpoint.run_folder(ckpt) / "generated" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    )
    if folder.is_file():
        raise UserError(f"output={folder} is a file: expected a folder")
    described = folder / "samples.json"
    if described.exists():
        try:
            before = dict(json.loads(described.read_text()))
        except (ValueError, TypeError, OSError) as error:
            raise UserError(f"{described}: not a description of samples ({error}): choose another output=") from None
        for key, value in settings.items():
            if key not in before:
                raise UserError(f"{folder} holds samples that do not tell their {key}: choose another output=")
            if before[key] != value:
                raise UserError(f"{folder} holds samples of another {key} ({before.get(key)}): choose another output=")
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no samples of ours: choose another output=")
    else:
        try:
            _describe(folder, settings)
        except OSError as error:
            raise UserError(f"{folder}: cannot be written ({error.strerror}): choose another output=") from None
    return folder


def _digest(model: LitDiffusion) -> str:
    """Of the weights drawn with: a run that trains on keeps the name of its newest checkpoint, not what is in it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _describe(folder: Path, contents: Mapping[str, Any]) -> None:
    with atomic(folder / "samples.json") as temporary:
        temporary.write_text(json.dumps(contents, indent=2) + "\n")


def _picture(folder: Path, index: int) -> Path:
    return folder / f"{index:06d}.png"


def _write_npz(file: BinaryIO, pictures: list[Path]) -> None:
    """What `np.savez` would write of all pictures, uint8 (N, H, W, C), with one of them in memory at a time."""
    one = _read(pictures[:1]).permute(0, 2, 3, 1)
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(pictures), *one.shape[1:])}
    with ZipFile(file, "w") as archive, archive.open("arr_0.npy", "w", force_zip64=True) as array:
        np.lib.format.write_array_header_1_0(array, header)
        for picture in pictures:
            array.write(np.asarray(Image.open(picture)).tobytes())


def _read(pictures: list[Path]) -> Tensor:
    """PNGs to uint8 (N, C, H, W)."""
    arrays = [np.atleast_3d(np.asarray(Image.open(picture))) for picture in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
