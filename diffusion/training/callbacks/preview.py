"""Sample images drawn at the end of a validation."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from diffusion.config.value_types import Count, Natural, Node, Positive, Verbatim
from diffusion.ground import images
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.sampling import grids
from diffusion.sampling.section import GENERATE, Sampling, refuse, under
from diffusion.training.cadence import Cadence
from diffusion.training.callbacks.pictures import Pictures
from diffusion.training.callbacks.validations import Validations

_STRIP = 8  # images and states in the strip
_FRAMES = 32  # of the GIF, at most: a colour frame costs 20 ms
_MOVING = 16  # images in the GIF


class Preview(Pictures):
    """Draws n images, from the same noise each time, into the grid `epoch_0003_step_0001234.png`; and the sampling
    trajectories of the first of them into `strip_...png`, one image per row, and `states_...gif`.

    Args:
        samples, validations, keep: as in `Pictures`.
        n, seed, y, condition, sampler, clipping, guidance, task: the section of sampling, conf/sampling/default.yaml.
            Without y or another condition the images show examples of each condition.
        every_n_steps, every_n_minutes, every_n_epochs: the cadence of pictures; all None: at each validation.
    """

    runs_network = True

    def __init__(
        self,
        samples: Path | str,
        n: Natural | None = 36,
        seed: Natural = 0,
        y: Verbatim | None = None,
        condition: Mapping[str, Verbatim | None] | None = None,
        sampler: Node | None = None,
        clipping: Node | None = None,
        guidance: Node | None = None,
        task: Node | None = None,
        every_n_steps: Count | None = None,
        every_n_minutes: Positive | None = None,
        every_n_epochs: Count | None = None,
        validations: Validations | None = None,
        keep: Count | None = 50,
    ) -> None:
        super().__init__(samples, validations, keep)
        self.cadence = Cadence(every_n_steps, every_n_minutes, every_n_epochs)
        self.section = {
            "n": n,
            "seed": seed,
            "y": y,
            "condition": condition or {},
            "sampler": sampler,
            "clipping": clipping,
            "guidance": guidance,
            "task": task or GENERATE,
        }
        self.sampling: Sampling | None = None
        self.are_examples = False  # the conditions

    def check(self, model: LitDiffusion, given: Iterable[str] = (), prefix: str = "") -> None:
        """Also raises UserError for a key of the command line that has no effect."""
        self._prepare(model, given, prefix)

    def _prepare(self, model: LitDiffusion, given: Iterable[str] = (), prefix: str = "") -> Sampling:
        with under(prefix):
            sampling = Sampling.of(self.section, model, given=given, prefix=prefix)
            self.are_examples = not sampling.conditions.rows
            if self.are_examples:
                sampling = sampling.with_examples(model)
            unused = sampling.unused(model)
        sampling.guidance.wrap(model.denoiser)  # raises UserError if its weaker model is missing
        refuse(given, unused, prefix)
        self.sampling = sampling
        return sampling

    def draw(self, pl_module: LitDiffusion, when: str) -> dict[str, Path]:
        sampling = self.sampling or self._prepare(pl_module)
        times = sampling.times(pl_module)
        steps = len(times) - 1
        every = -(-steps // (_FRAMES - 1))
        keep = range(steps % every, steps + 1, every)
        batches = [
            pl_module.space.picture(states)
            for _, states in sampling.batches(
                pl_module, torch.arange(sampling.n), keep=keep, purpose="preview", progress=False
            )
        ]
        grid = self._grid(sampling, torch.cat([states[-1] for states in batches]), pl_module.classes)
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

    def _grid(self, sampling: Sampling, x_0: Tensor, classes: Sequence[str] | None) -> Tensor:
        """Examples of labels have one column per class."""
        columns, conditions = sampling.task.columns, sampling.conditions
        if self.are_examples:
            return images.grid(x_0, columns=columns or (len(classes) if classes else None))
        rows = grids.rows(len(x_0), conditions, columns)
        return grids.grid(rows, lambda row: x_0[[*row]], grids.titles(rows, conditions))
