"""Tensors that are costly to compute and the same in every run on the same data."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion.data.cache import DecodedCache
from diffusion.ground.files import atomic

_KEPT = 50  # files of a kind

log = logging.getLogger(__name__)


def cached(
    kind: str, key: str, make: Callable[[], dict[str, Tensor]], folder: Path | str | None = None
) -> dict[str, Tensor]:
    """What the file KIND-KEY.safetensors holds, or else what `make` gives, which the file then holds: written whole or
    not at all. Of each kind the 50 files written last stay.

    folder: None for that of decoded images. A file that is damaged is made anew; a folder that cannot be written to
    costs the time of the next run, not this one.
    """
    place = Path(folder).expanduser() if folder else DecodedCache().folder
    file = place / f"{kind}-{key}.safetensors"
    with suppress(OSError, SafetensorError):
        return load_file(file)
    made = {name: tensor.contiguous().cpu() for name, tensor in make().items()}
    try:
        with atomic(file) as temporary:
            save_file(made, temporary)
        for old in sorted(place.glob(f"{kind}-*.safetensors"), key=lambda each: each.stat().st_mtime)[:-_KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s was not written (%s)", file, error)
    return made
