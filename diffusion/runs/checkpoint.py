"""Checkpoints: written whole or not at all, found by run folder, read without executing anything."""

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from diffusion.config import upgrades
from diffusion.denoiser import Denoiser, Frozen
from diffusion.ground import archive
from diffusion.ground.errors import UserError
from diffusion.ground.files import atomic
from diffusion.guidance import Guidance, TwoModels
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.networks.kernels.choice import use_kernels
from diffusion.optimization import snapshots
from diffusion.runs import build
from diffusion.runs.weights import Weights

log = logging.getLogger(__name__)

_DENOISER = "denoiser."  # prefix in a state dict of the weights that sampling needs


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint writer, but atomic. A full or missing disk costs the checkpoint, not the run: the earlier
    file stays, and the caller finds no new file. Loaded contents are upgraded to the current format."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        try:
            with atomic(path) as temporary, open(temporary, "wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            # torch reports a failed enforce; the reason is the exception of its writer
            reason = error if isinstance(error, OSError) else error.__context__
            if not isinstance(reason, OSError):
                raise
            log.warning(
                "%s was not written (%s): free disk space; the previous checkpoint stays, training continues",
                path,
                reason.strerror or reason,
            )

    def load_checkpoint(self, path: str | Path, *args: Any, **kwargs: Any) -> dict[str, Any]:
        contents = super().load_checkpoint(path, *args, **kwargs)
        return (
            upgrades.upgraded(contents, path) if contents.get("config") else contents
        )  # another program's module has none


def find(ckpt: str | Path) -> Path:
    """The checkpoint file of `ckpt`: a file itself; of a run folder its newest undamaged one; RUN/last or RUN/best.

    Reports newer ones that are damaged. Raises UserError that names what was looked for.
    """
    for path in (candidates := _candidates(Path(ckpt))):
        if path == Path(ckpt) or archive.is_whole(path):
            return path
        _say_damaged(path)
    raise _all_damaged(ckpt, candidates)


def opened(ckpt: str | Path) -> tuple[Path, dict[str, Any]]:
    """The file that `find` returns and the contents that `read` returns, in one pass over the file."""
    for path in (candidates := _candidates(Path(ckpt))):
        try:
            return path, read(path)
        except UserError:
            if path == Path(ckpt) or archive.is_whole(path):
                raise
            _say_damaged(path)
    raise _all_damaged(ckpt, candidates)


def run_folder(ckpt: Path) -> Path:
    """The folder of the run that a checkpoint file belongs to; of a file outside a run, the folder that contains it."""
    return ckpt.parent.parent if ckpt.parent.name == "checkpoints" else ckpt.parent


def _candidates(ckpt: Path) -> list[Path]:
    """The file `ckpt`, or the possible files for RUN/last, newest first, or for RUN/best."""
    if ckpt.is_file():
        return [ckpt]
    run, name = (ckpt.parent, ckpt.name) if ckpt.name in ("last", "best") else (ckpt, "last")
    folder = run / "checkpoints"
    steps = sorted(folder.glob("step_*.ckpt"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    best = [*folder.glob("best.ckpt")]
    candidates = best if name == "best" else [*folder.glob("last.ckpt"), *steps, *best]
    if candidates:
        return candidates
    if not run.is_dir():
        raise UserError(f"ckpt={ckpt}: no such file or run folder")
    raise UserError(
        f"ckpt={ckpt}: no checkpoint {folder / name}.ckpt; expected a run folder that train.py wrote, or a .ckpt file"
    )


def _say_damaged(path: Path) -> None:
    rank_zero_info(f"{path} is damaged (truncated or modified): trying the previous one")


def _all_damaged(ckpt: str | Path, candidates: list[Path]) -> UserError:
    return UserError(f"ckpt={ckpt}: {len(candidates)} checkpoints, all of them damaged")


def read(path: str | Path) -> dict[str, Any]:
    """The contents of a checkpoint: plain tensors and containers on the CPU, nothing unpickled; an earlier format is
    upgraded.

    Raises UserError for a file that is damaged, of another program or of a later format, and for a config that names
    unregistered classes.
    """
    contents = archive.read(path, "a readable checkpoint")
    if not isinstance(contents, dict) or not isinstance(contents.get("config"), dict) or "state_dict" not in contents:
        raise UserError(f"{path}: not a checkpoint of this program (no config inside)")
    try:
        json.dumps(contents["config"], sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not a config of this program inside ({error})") from None
    return upgrades.upgraded(contents, path)


def model_of(config: Mapping[str, Any], source: str | Path) -> LitDiffusion:
    """The untrained model of a config from `source`. Raises UserError for an invalid config."""
    try:
        return build.model(config)
    except UserError:
        raise
    except Exception as error:  # values that no command line accepts
        raise UserError(f"{source}: its config builds no model ({type(error).__name__}: {error})") from error


def put_weights(model: LitDiffusion, weights: Mapping[str, Tensor]) -> None:
    """Loads the denoiser of a checkpoint's state dict into `model`, without what only training needs, such as a learnt
    weighting. Raises UserError if the network is another one."""
    try:
        names = {name: name.removeprefix(_DENOISER) for name in weights if name.startswith(_DENOISER)}
        model.denoiser.load_state_dict({ours: weights[name] for name, ours in names.items()})
    except Exception as error:  # a hand-made state may hold anything
        raise UserError(f"the checkpoint's weights do not fit its network: {error}") from error


def put_state(model: LitDiffusion, state: Mapping[str, Tensor]) -> None:
    """Loads a checkpoint's complete state dict into `model`. Raises UserError if the model is another one."""
    put_weights(model, state)
    if odd := sorted(model.state_dict().keys() ^ state.keys()):
        raise UserError(
            f"the checkpoint was trained with another loss or weighting ({', '.join(odd[:3])} in one only): resume "
            "with the overrides of the first session, or start from its weights (resume_mode=weights)"
        )
    model.load_state_dict(state)


def load(ckpt: str | Path, weights: str | float = "ema", device: str | torch.device = "cpu") -> LitDiffusion:
    """The trained model of a run folder or checkpoint, in eval mode.

    weights: `ema` (the first average), `raw`, the name of an average such as `half_life_50000`, or after `ema=power` a
    number: the width, sigma_rel, of an average that is reconstructed from the snapshots beside the checkpoint.
    Raises UserError if it is missing or damaged, or has no such weights.
    """
    path, contents = opened(ckpt)
    model = trained(contents, path, Weights.of(weights), device)
    with suppress(UserError):  # a moved weaker model is an error only in sampling with this guidance
        model.guidance = guidance(contents["config"]["guidance"], model, (path, contents))
    return model


def trained(contents: dict[str, Any], path: Path, weights: Weights, device: str | torch.device = "cpu") -> LitDiffusion:
    """The trained model of the contents of a checkpoint that was read from `path`."""
    model = model_of(contents["config"], path)
    put_weights(model, weights.in_checkpoint(contents, path))
    return model.to(device).eval()


def guidance(
    node: Mapping[str, Any], model: LitDiffusion, source: tuple[Path, dict[str, Any]] | None = None
) -> Guidance:
    """The guidance of its config, for `model`. The weaker model that it may need is loaded from its checkpoint, or
    from `source`: the checkpoint of `model` and its contents.

    Raises UserError if the weaker model is missing, or does not predict the same x_t under the same conditions.
    """
    made = build.instantiate(node)
    if not isinstance(made, TwoModels):
        return made
    if made.ckpt is not None:
        source = opened(made.ckpt)
    if source is None:
        return made
    path, contents = source
    if made.step is not None:
        contents = snapshots.earlier(contents, path.parent / snapshots.FOLDER, made.step)
    weights = made.weights or ("raw" if made.step is None else "ema")
    weaker = trained(contents, path, Weights.of(weights), model.device)
    t = torch.arange(model.denoiser.schedule.T + 1)
    schedules = [each.denoiser.schedule for each in (model, weaker)]
    same = schedules[0].T == schedules[1].T and all(map(torch.equal, *(schedule(t) for schedule in schedules)))
    if not same or model.space != weaker.space:
        raise UserError(f"guidance.ckpt={path} is a model with another schedule, image shape or scale: it cannot guide")
    for name in model.conditioning.keys() & weaker.conditioning.keys():
        if not model.conditioning[name].means_the_same(weaker.conditioning[name]):
            raise UserError(f"guidance.ckpt={path} was trained with another {name}: it predicts other images")
    use_kernels(weaker, model.denoiser.kernels)
    return replace(made, weaker=Frozen(weaker.denoiser))


def weights_sha256(denoiser: Denoiser) -> str:
    """The hash of a denoiser's weights: last.ckpt of a run keeps its name, but not its contents."""
    digest = hashlib.sha256()
    for name, tensor in sorted(denoiser.state_dict(prefix=_DENOISER).items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
