"""The section `sampling` of a config (conf/sampling/default.yaml), applied to a model."""

import copy
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from diffusion.clipping import Clipping
from diffusion.config import registry, signatures
from diffusion.config.registry import TARGET
from diffusion.config.value_types import Count, Natural, Node, Verbatim
from diffusion.data.decoding import Limits
from diffusion.denoiser import Frozen
from diffusion.ground.errors import UserError
from diffusion.guidance import Guidance, TwoModels
from diffusion.lit import notices
from diffusion.lit.lightning_module import LitDiffusion
from diffusion.runs import build, checkpoint
from diffusion.runs.groups import choice
from diffusion.samplers.base import Sampler
from diffusion.sampling.conditions import Conditions
from diffusion.tasks.generate import Generate


class SamplingKeys(TypedDict):
    """The keys of the section. Those of its nodes are their constructors' arguments."""

    n: Count | None
    seed: Natural
    y: Verbatim | None
    condition: Mapping[str, Verbatim | None]
    sampler: Node | None
    clipping: Node | None
    guidance: Node | None
    task: Node


GENERATE = {TARGET: "diffusion.tasks.generate.Generate"}  # the node of the task


@dataclass(frozen=True)
class Sampling:
    """How images are drawn from a model: the first n of `seed`, with the `conditions` in turn.

    nodes: the configs of the parts, by group.
    """

    sampler: Sampler
    clip: Clipping
    guidance: Guidance
    task: Generate
    conditions: Conditions
    n: int
    seed: int = 0
    nodes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        section: Mapping[str, Any],
        model: LitDiffusion,
        *,
        ckpt: Path | None = None,
        contents: dict[str, Any] | None = None,
        given: Iterable[str] = (),
        sampler: Sampler | None = None,
        prefix: str = "",
    ) -> "Sampling":
        """section: in plain containers. model: loaded from `contents`, those of the checkpoint `ckpt`; a model in
        training has none, and its guidance is complete. given: the keys of the command line; the section's begin with
        `prefix`. sampler: overrides the section's.

        Raises UserError for invalid values.
        """
        own = _config(model)
        task = build.instantiate(section["task"], space=model.space, limits=_limits(model))
        conditions = Conditions.read(section["y"], section["condition"], model.conditioning)
        nodes = {group: _node(group, section[group], own[group]) for group in ("clipping", "guidance")}
        nodes["task"] = {**section["task"], **_pictures(section["task"])}
        if sampler is None:
            nodes["sampler"] = _sampler_node(section["sampler"], task, model, f"{prefix}sampler.steps" in given, prefix)
        chosen: Sampler = build.instantiate(nodes["sampler"]) if sampler is None else sampler
        chosen.check(model.denoiser.schedule, model.objective.learns_variance)
        source = None if ckpt is None or contents is None else (ckpt, contents)
        if source is None and section["guidance"] is None:
            guidance = model.guidance
        else:
            guidance = checkpoint.guidance(nodes["guidance"], model, source)
        if isinstance(guidance, TwoModels) and isinstance(guidance.weaker, Frozen):
            nodes["guidance"]["weaker_sha256"] = checkpoint.weights_sha256(guidance.weaker.denoiser)
        return cls(
            sampler=chosen,
            clip=build.clipping(nodes["clipping"], model.space) or model.clip,
            guidance=guidance,
            task=task,
            conditions=conditions,
            n=task.usual_n if section["n"] is None else section["n"],
            seed=section["seed"],
            nodes=nodes,
        )

    def with_examples(self, model: LitDiffusion) -> "Sampling":
        """The same with examples of each condition in turn, in place of its own conditions."""
        return replace(self, conditions=Conditions.examples(model.conditioning, self.n))

    def times(self, model: LitDiffusion) -> Tensor:
        """The times visited, float64 (steps + 1,)."""
        return self.task.times(self.sampler, model.denoiser.schedule)

    def batches(self, model: LitDiffusion, index: Tensor, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
        """The images `index`, int64 (n,); yields and options as in `LitDiffusion.sample_batches`. Row r of the task,
        often a single image, uses row r of the conditions."""
        condition = self.conditions.condition(self.task.streams(index))
        lacks = self.guidance.needs(condition)
        return model.sample_batches(
            index,
            seed=self.seed,
            condition=condition,
            task=self.task,
            sampler=self.sampler,
            clip=self.clip,
            guidance=replace(self.guidance, scale=1.0) if lacks else self.guidance,
            **options,
        )

    def notify_turns(self) -> None:
        """Issues a Notice if the n images do not cover all conditions."""
        if turns := self.conditions.period:
            drawn = int(self.task.streams(torch.tensor(self.n - 1)).item()) + 1
            notices.of_turns(turns, drawn, self.n, turns * (self.task.columns or 1))

    def unused(self, model: LitDiffusion) -> dict[str, str]:
        """The keys, or whole groups, of the section that have no effect with the other values, and why."""
        if missing := self.guidance.needs(self.conditions.condition(torch.arange(1))):
            guidance = {"guidance": missing}
        else:
            guidance = self.guidance.unused(model.denoiser.schedule, self.times(model))
        return {**self.sampler.unused(), **self.task.unused(self.sampler), **guidance}

    def settings(self, unused: Mapping[str, str]) -> dict[str, Any]:
        """The entries of samples.json: all settings that the images depend on, without the model and `unused` keys."""
        found = copy.deepcopy({**self.nodes, **self.conditions.settings(), "seed": self.seed})
        for group in self.nodes:
            registry.name_class(found[group])
        for name in unused:
            group, _, key = name.partition(".")
            if key:
                found.get(group, {}).pop(key, None)
            else:
                found.pop(group, None)
        return found


def unused_all(why: str) -> dict[str, str]:
    """All keys of the section except the seed, for commands that draw nothing, and why."""
    return dict.fromkeys((key for key in SamplingKeys.__annotations__ if key != "seed"), why)


def refuse(given: Iterable[str], unused: Mapping[str, str], prefix: str = "") -> None:
    """Raises UserError for a key of the command line that has no effect. unused: such keys or sections, and why;
    prefix: of the section's keys on the command line."""
    for key in given:
        own = key.removeprefix(prefix)
        for name in (own, own.partition(".")[0]):
            if key.startswith(prefix) and name in unused:
                raise UserError(f"{key} has no effect: {unused[name]}")


@contextmanager
def under(prefix: str) -> Iterator[None]:
    """Adds `prefix` to the key that a UserError names, as on the command line."""
    try:
        yield
    except UserError as error:
        begins = re.match(r"(n|seed|y|condition|sampler|clipping|guidance|task)[.=]", str(error))
        raise UserError(f"{prefix}{error}" if begins else f"{prefix.rstrip('.')}: {error}") from error


def _node(
    group: str, asked: Mapping[str, Any] | None, own: Mapping[str, Any], whose: str = "the model's own"
) -> dict[str, Any]:
    """The config of a part: `asked` if it names a class, else `own` updated with `asked`. Raises UserError for a key
    that `own` does not have."""
    if asked is not None and TARGET in asked:
        return dict(asked)
    names = {**own, **signatures.parameters(own[TARGET])}  # a stored config can lack keys that were added since
    for key in (asked or {}).keys() - names.keys():
        known = ", ".join(f"{group}.{each}" for each in names if each != TARGET) or "none"
        raise UserError(f"{group}.{key}: {whose} {group} has no such key; it has {known}")
    return {**own, **(asked or {})}


def _sampler_node(
    asked: Mapping[str, Any] | None, task: Generate, model: LitDiffusion, typed: bool, prefix: str
) -> dict[str, Any]:
    """typed: whether the command line sets the number of steps."""
    if task.usual_sampler is None:
        node = _node("sampler", asked, _config(model)["sampler"])
    else:
        node = _node("sampler", asked, choice("sampler", task.usual_sampler), "this task's default")
    typed = typed or (asked is not None and TARGET not in asked and "steps" in asked)
    return node if typed else build.with_steps_of(model.denoiser.schedule, node, f"{prefix}sampler")


def _limits(model: LitDiffusion) -> Limits | None:
    """The values that map to black and white in the training files, None for those of the file type."""
    found = _config(model)["dataset"].get("range")
    return (found[0], found[1]) if isinstance(found, list) else None


def _config(model: LitDiffusion) -> dict[str, Any]:
    if model.config is None:
        raise ValueError("this model has no config, which completes the sampling section")
    return model.config


def _pictures(task: Mapping[str, Any]) -> dict[str, str]:
    """The hashes of a task's input files."""
    files = {key: Path(value) for key, value in task.items() if isinstance(value, str) and Path(value).is_file()}
    return {f"{key}_sha256": hashlib.sha256(file.read_bytes()).hexdigest() for key, file in files.items()}
