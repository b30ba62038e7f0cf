"""The summary of an image folder, in a few short lines."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from diffusion.data.layout import Layout
from diffusion.data.listing import counted

_LISTED = 10  # maximum number of names per line


def report(path: str, layout: Layout, files: Sequence[str], n_val: int) -> Iterator[str]:
    """The lines. files: the readable ones of `layout.files`, in their order; the first `n_val` are for validation."""
    names = layout.classes or ()
    every, readable, trained = (Counter(map(layout.class_of, each)) for each in (layout.files, files, files[n_val:]))
    classes = f"{len(names)} classes: {listed([f'{name} {readable[name]:,}' for name in names])}"
    top = f" in {layout.top}" if layout.top else ""
    yield printable(f"{path}: {len(files):,} pictures{top}, {classes if names else 'no classes'}")
    yield f"split {layout.rule}: train {len(files) - n_val:,}, val {n_val:,}"
    if layout.left_out:
        yield f"left out: {listed(counted(layout.left_out))}"
    if layout.bare:
        yield f"folders without pictures: {listed(layout.bare)}"
    if names and readable[None]:
        yield f"pictures beside the class folders, without a class: {readable[None]:,}"
    if lost := [f"{name} {every[name]:,}" for name in names if not readable[name]]:
        yield f"classes of which no picture can be read: {listed(lost)}"
    if untrained := [name for name in names if readable[name] and not trained[name]]:
        yield f"classes without pictures for training: {listed(untrained)}"


def broken(skipped: Mapping[str, str]) -> str:
    """The list of broken files. skipped: file -> reason, at least one."""
    return (
        f"{len(skipped):,} broken images: {listed([f'{file} ({reason})' for file, reason in sorted(skipped.items())])}"
    )


def listed(names: Sequence[str]) -> str:
    rest = f", and {len(names) - _LISTED:,} more" if len(names) > _LISTED else ""
    return printable(", ".join(names[:_LISTED]) + rest)


def printable(text: str) -> str:
    """One line, with other characters escaped: a file name may hold any bytes."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
