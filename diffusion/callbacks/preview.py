"""Images drawn at the end of a validation: how training is going, to the eye."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule

from diffusion import images
from diffusion.callbacks.pictures import Pictures

_STRIP = 8  # images and states in the strip
_FRAMES = 32  # of the GIF, at most: of colour each costs 20 ms
_MOVING = 16  # images in the GIF


class Preview(Pictures):
    """Draws n images from the same noise each time, so that they can be compared, into one grid, the file
    `epoch_0003_step_0001234.png`; and how the first of them came about: `strip_...png`, an image a row, and
    `states_...gif`.

    Args:
        folder, pictures: as in `Pictures`.
        n: images in a grid.
        seed: of the noise.
        sampler: a cheaper one than the module's own, or None for that.
    """

    def __init__(self, folder: Path | str, n: int = 36, seed: int = 0, sampler: Any = None, **pictures: Any) -> None:
        super().__init__(folder, **pictures)
        self.n = n
        self.seed = seed
        self.sampler = sampler

    def draw(self, pl_module: LightningModule, when: str) -> dict[str, Path]:
        sampler, classes = self.sampler or pl_module.sampler, pl_module.classes
        examples = {name: conditioner.examples(self.n) for name, conditioner in pl_module.conditioning.items()}
        times = sampler.times(pl_module.denoiser.schedule)
        steps = len(times) - 1
        every = -(-steps // (_FRAMES - 1))
        keep = range(steps % every, steps + 1, every)
        batches = [
            pl_module.space.picture(states)
            for _, states in pl_module.sample_batches(
                torch.arange(self.n),
                self.seed,
                condition=examples,  # with labels a column a class
                sampler=sampler,
                keep=keep,
                purpose="preview",
                progress=False,
            )
        ]
        x_0 = torch.cat([states[-1] for states in batches])
        grid = images.grid(x_0, columns=len(classes) if classes else None)
        states = batches[0]
        shown = images.evenly(len(states), _STRIP)
        titles = [f"t={t:.0f}" for t in times[list(keep)][shown]]
        strip = images.strip(states[shown, :_STRIP], titles)
        frames = [images.grid(frame) for frame in states[:, :_MOVING]]
        return {
            "preview": images.write_png(self.folder / f"{when}.png", grid),
            "preview/strip": images.write_png(self.folder / f"strip_{when}.png", strip),
            "preview/states": images.write_gif(self.folder / f"states_{when}.gif", frames),
        }
