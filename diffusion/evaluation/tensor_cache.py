"""Cache of tensors that are expensive to compute and equal in every run on the same data."""

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion.data.cache import DecodedCache
from diffusion.ground.files import atomic

_KEPT = 50  # files of each kind

log = logging.getLogger(__name__)


def cached(
    kind: str, key: str, make: Callable[[], dict[str, Tensor]], folder: Path | str | None = None
) -> dict[str, Tensor]:
    """The contents of the file KIND-KEY.safetensors, or else the result of `make`, which is then written to it
    atomically. Of each kind the 50 newest files are kept.

    folder: None for that of decoded images. A damaged file is made again; a folder that is not writable only means that
    the next run computes the tensors again.
    """
    location = Path(folder).expanduser() if folder else DecodedCache().folder
    file = location / f"{kind}-{key}.safetensors"
    with suppress(OSError, SafetensorError):
        return load_file(file)
    made = {name: tensor.contiguous().cpu() for name, tensor in make().items()}
    try:
        with atomic(file) as temporary:
            save_file(made, temporary)
        for old in sorted(location.glob(f"{kind}-*.safetensors"), key=lambda each: each.stat().st_mtime)[:-_KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s was not written (%s)", file, error)
    return made
