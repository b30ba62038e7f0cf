"""What a checkpoint, a converted file or a manifest of an earlier version means today.

Each file has the number of its format. A step of the table below brings a config from one format to the next: it
renames what has moved, and writes every new key with the value that means the old behaviour, so that a default that is
chosen later never changes an old model or a resumed run.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from diffusion.errors import UserError

KEY = "format"  # of the contents; what has none is of format 0


def _from_0(config: dict[str, Any]) -> None:
    """Before there were format numbers."""
    dataset = config.get("dataset")
    if isinstance(dataset, dict) and dataset.get("_target_") == "diffusion.data.image_folder.ImageFolder":
        dataset |= {"split": "permutation", "range": "container"}


_STEPS: tuple[Callable[[dict[str, Any]], None], ...] = (_from_0,)
FORMAT = len(_STEPS)  # what this version writes


def upgraded(contents: Mapping[str, Any], source: object) -> dict[str, Any]:
    """`contents` (format, config, ...) of the file `source`, its config as this version would have written it.

    Raises UserError for a format of a later version.
    """
    number = contents.get(KEY, 0)
    if not isinstance(number, int) or not 0 <= number <= FORMAT:
        raise UserError(f"{source}: format {number}, but this version reads up to {FORMAT}: update the program")
    config = copy.deepcopy(dict(contents["config"]))
    for step in _STEPS[number:]:
        step(config)
    return {**contents, KEY: FORMAT, "config": config}
