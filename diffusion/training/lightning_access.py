"""Typed access to what Lightning passes to callbacks, or sets on a Trainer without declaring it."""

from typing import Any, TypeVar

from lightning.pytorch import Callback, LightningDataModule, Trainer

from diffusion.lit.lightning_module import LitDiffusion

Kind = TypeVar("Kind", bound=Callback)


def model_of(pl_module: Any) -> LitDiffusion:
    """The LightningModule of a hook as a LitDiffusion. Not checked: a module with the same attributes will do."""
    return pl_module


def data_of(trainer: Trainer) -> LightningDataModule | None:
    """The data module, or None if the Trainer has plain data loaders."""
    return trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue] - undeclared in Lightning


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """All callbacks of the Trainer."""
    return trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue] - undeclared in Lightning


def callback_of(trainer: Trainer, kind: type[Kind]) -> Kind | None:
    """The Trainer's first callback of a class, or None."""
    return next((each for each in callbacks_of(trainer) if isinstance(each, kind)), None)
