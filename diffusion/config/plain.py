"""Conversion of OmegaConf containers to plain Python ones."""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf


def plain(config: Any, *, resolve: bool = True) -> dict[str, Any]:
    """A section as a dict of dicts, lists and values. resolve: whether interpolations are replaced by their values.

    Raises TypeError if it is not a section, and omegaconf.errors.OmegaConfBaseException if an interpolation cannot be
    resolved.
    """
    found = OmegaConf.to_container(config, resolve=resolve)
    if not isinstance(found, dict):
        raise TypeError(f"expected a section, got {type(found).__name__}")
    return {str(key): value for key, value in found.items()}


def load(file: Path) -> DictConfig:
    """A yaml file of ours, whose top is a section."""
    found = OmegaConf.load(file)
    if not isinstance(found, DictConfig):
        raise TypeError(f"{file}: expected a section")
    return found
