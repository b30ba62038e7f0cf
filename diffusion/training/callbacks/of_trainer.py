"""What a trainer has at run time and Lightning's types do not say."""

from typing import TypeVar

from lightning.pytorch import Callback, LightningDataModule, Trainer

from diffusion.lit.module import LitDiffusion

_Callback = TypeVar("_Callback", bound=Callback)


def callback(trainer: Trainer, cls: type[_Callback]) -> _Callback | None:
    """The first callback of a class, None if there is none."""
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue] (set by a connector)
    return next((each for each in callbacks if isinstance(each, cls)), None)


def data(trainer: Trainer) -> LightningDataModule | None:
    """The data of a run, None for a trainer that was given loaders."""
    return trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue] (set by a connector)


def model(trainer: Trainer) -> LitDiffusion:
    """The model that is trained."""
    found = trainer.lightning_module
    assert isinstance(found, LitDiffusion)
    return found
