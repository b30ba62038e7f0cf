"""The folder of samples: `images/000000.png` and so on, with nothing else in `images/`, and files beside it that show
and describe them. If pictures lose information, `arrays/000000.npy` has the stored values."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusion.ground import images
from diffusion.ground.errors import UserError, reading
from diffusion.ground.files import atomic, json_contents, json_text, read_json, remove_remains, write_json
from diffusion.runs import manifest
from diffusion.spaces.base import Space

FORMAT = 1  # of the folder; 0 had the images beside grid.png, and no format number


class Samples:
    """Samples of `space`, described by `settings`, in `folder`. Existing samples are kept.

    Raises: UserError for a folder with samples of other settings or with other files, before anything is written, and
    for one that cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], space: Space):
        self.folder, self.space = folder, space
        self.images = folder / "images"
        self.arrays = None if space.holds_pictures else folder / "arrays"
        self.npz = folder / "samples.npz"
        self.settings = {"format": FORMAT, **settings}
        before = self._before()
        with self.writing():
            for files in filter(None, (self.images, self.arrays)):
                files.mkdir(parents=True, exist_ok=True)
                remove_remains(files)
            write_json(self._description, {**before, **self.settings})

    @property
    def _description(self) -> Path:
        return self.folder / "samples.json"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turns an OSError into a UserError."""
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be written ({error.strerror or error}): choose another output=, or fix it and "
                "repeat the command, which resumes from the existing samples"
            ) from None

    def picture(self, index: int) -> Path:
        """The file of image `index`."""
        return self.images / f"{index:06d}.png"

    def pictures(self) -> list[Path]:
        """The existing files, in order."""
        return sorted(self.images.glob("[0-9]*.png"), key=lambda file: (len(file.name), file.name))  # from a million on

    def write(self, index: Tensor, x_0: Tensor) -> None:
        """Writes the samples x_0 (B, C, H, W) that do not exist yet, the picture last: it marks a complete sample."""
        for i, one in zip(index.tolist(), x_0, strict=True):
            if self.picture(i).exists():
                continue
            if self.arrays is not None:
                with atomic(_array(self.arrays, self.picture(i))) as temporary, open(temporary, "wb") as file:
                    np.save(file, self.space.decode(one).numpy())
            images.write_png(self.picture(i), self.space.picture(one))

    def describe(self, **more: Any) -> None:
        """Writes samples.json: the settings, and `more`."""
        write_json(self._description, {**self.settings, **more})

    def write_npz(self) -> None:
        """Writes all samples as `np.savez` would, with one in memory at a time: pictures as uint8 (N, H, W, C), arrays
        unchanged, (N, C, H, W)."""
        pictures = self.pictures()
        one = self._values(pictures[0])
        descr = np.lib.format.dtype_to_descr(one.dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (len(pictures), *one.shape)}
        with (
            atomic(self.npz) as temporary,
            ZipFile(temporary, "w") as archive,
            archive.open("arr_0.npy", "w", force_zip64=True) as array,
        ):
            np.lib.format.write_array_header_1_0(array, header)
            for picture in pictures:
                array.write(self._values(picture).tobytes())

    def _values(self, picture: Path) -> np.ndarray:
        """The stored values of the sample that `picture` shows."""
        if self.arrays is None:
            return _pixels(picture)
        array = _array(self.arrays, picture)
        with reading(array, f"a readable array; remove it and {picture}, and both are drawn again"):
            return np.load(array, allow_pickle=False)

    def _before(self) -> dict[str, Any]:
        """The existing description; empty for a new folder."""
        if self.folder.is_file():
            raise UserError(f"output={self.folder} is a file: expected a folder")
        if not self._description.exists():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise UserError(f"{self.folder} is not empty and not a folder of samples: choose another output=")
            return {}
        try:
            before = dict(read_json(self._description))
        except (ValueError, TypeError, OSError) as error:
            raise UserError(
                f"{self._description}: not a description of samples ({error}): choose another output="
            ) from None
        if before.get("format") != FORMAT:
            raise UserError(
                f"{self.folder} holds samples of {'a later' if 'format' in before else 'an earlier'} version of this "
                "program, with another layout: choose another output="
            )
        ours = json_contents(json_text(self.settings))
        for key in ours:
            if key not in before:
                raise UserError(f"{self.folder} holds samples without a record of their {key}: choose another output=")
        for key, (value, _) in manifest.differences({key: before[key] for key in ours}, ours).items():
            raise UserError(f"{self.folder} holds samples of another {key} ({value}): choose another output=")
        return before


def read(pictures: list[Path]) -> Tensor:
    """PNGs to uint8 (N, C, H, W)."""
    return torch.from_numpy(np.stack([_pixels(picture) for picture in pictures])).permute(0, 3, 1, 2)


def _array(arrays: Path, picture: Path) -> Path:
    return arrays / f"{picture.stem}.npy"


def _pixels(picture: Path) -> np.ndarray:
    """uint8 (H, W, C)."""
    with reading(picture, "a readable picture; remove it, and the same command draws it again"):
        return np.atleast_3d(np.asarray(Image.open(picture)))
