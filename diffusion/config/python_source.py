"""Resolves names in Python files by reading the files, without running them."""

import ast
import builtins
import functools
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from diffusion.config.suggestions import suggest
from diffusion.ground.errors import UserError


class Imported(NamedTuple):
    """A name that a file imports: a module, or a name of one."""

    module: str
    name: str | None = None


class Module(NamedTuple):
    """A file: the names at its top level, and the modules from which it imports all names."""

    name: str
    file: Path
    names: dict[str, Any]
    stars: list[str]


class Definition(NamedTuple):
    """The definition of a name: a class, a function, or the expression that was assigned to it."""

    node: ast.AST
    module: Module
    method: bool = False


class Unknown:
    """Represents a class, or anything else in an annotation that is not a value."""


# Imported rather than read: they are small, and define the vocabulary of annotations.
_VOCABULARY = {
    *("typing", "typing_extensions", "collections.abc", "annotated_types", "pathlib", "math", "dataclasses"),
    *("diffusion.config.value_parsers", "diffusion.config.value_types"),
}
_BUILTINS = ("bool", "int", "float", "str", "bytes", "list", "tuple", "dict", "set", "frozenset")


def _file(name: str, path: tuple[str, ...]) -> Path | None:
    """The file of a module by its dotted name. Python looks up only the first part, which imports nothing."""
    top, *rest = name.split(".")
    origin, folders = _top(top, path) or (None, [])
    for part in rest[:-1]:
        folders = [folder / part for folder in folders]
    if not rest:
        return origin
    files = [file for folder in folders for file in (folder / rest[-1] / "__init__.py", folder / f"{rest[-1]}.py")]
    return next((file for file in files if file.is_file()), None)


@functools.cache
def _top(name: str, _: tuple[str, ...]) -> tuple[Path | None, list[Path]] | None:
    """The file and the folders of a module without a dot; None where it is not installed."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        return None
    file = Path(spec.origin) if spec.origin is not None and spec.origin.endswith(".py") else None
    return file, [*map(Path, spec.submodule_search_locations or ())]


def _module(name: str) -> Module | None:
    if name.partition(".")[0] in sys.stdlib_module_names:
        return None
    file = _file(name, tuple(sys.path))
    return None if file is None else _parsed(name, file)


@functools.cache
def _parsed(name: str, file: Path) -> Module:
    try:
        tree = ast.parse(file.read_bytes(), file)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{file}: cannot be read as Python ({error})") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None
    module = Module(name, file, {}, [])
    _collect(tree.body, module)
    return module


def _collect(body: Sequence[ast.stmt], module: Module) -> None:
    for node in body:
        match node:
            case ast.ClassDef(name) | ast.FunctionDef(name):
                module.names[name] = node
            case ast.Assign([ast.Name(name)], value) | ast.AnnAssign(ast.Name(name), _, ast.expr() as value):
                module.names[name] = value
            case ast.Import(aliases):
                for alias in aliases:
                    top = alias.name.partition(".")[0]
                    module.names[alias.asname or top] = Imported(alias.name if alias.asname else top)
            case ast.ImportFrom(_, aliases):
                source = _source(node, module)
                for alias in aliases:
                    if alias.name == "*":
                        module.stars.append(source)
                    else:
                        module.names[alias.asname or alias.name] = Imported(source, alias.name)
            case ast.If(_, then, otherwise):
                _collect(otherwise, module)
                _collect(then, module)  # of TYPE_CHECKING: it wins
            case ast.Try(then, handlers):
                for handler in handlers:
                    _collect(handler.body, module)
                _collect(then, module)
            case _ if type(node).__name__ == "TypeAlias":  # type Count = ..., since Python 3.12
                alias: Any = node
                module.names[alias.name.id] = alias.value


def _source(node: ast.ImportFrom, module: Module) -> str:
    """The module of `from ... import`, which may be relative."""
    if not node.level:
        return str(node.module)
    levels = node.level - (module.file.name == "__init__.py")
    package = module.name.split(".")[: -levels or None]
    return ".".join([*package, *([node.module] if node.module else [])])


def definition(target: str) -> Definition:
    """The definition at an import path. Raises UserError if there is none."""
    parts = target.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = _module(".".join(parts[:length]))
        if module is not None:
            return _member(target, module, parts[length:])
    if _top(parts[0], tuple(sys.path)) is None:
        raise UserError(f"{target}: no module {parts[0]} is installed, or in a folder of Python's path")
    raise UserError(f"{target}: expected MODULE.NAME, with a module in Python source")


def _member(target: str, module: Module, names: Sequence[str]) -> Definition:
    found = _lookup(module.name, names[0])
    if not isinstance(found, Definition):
        known = [name for name, node in module.names.items() if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        raise UserError(f"{target}: {module.file} has no {names[0]} in it{suggest(names[0], known)}")
    for name in names[1:]:  # a class within a class, or a class method
        body = found.node.body if isinstance(found.node, ast.ClassDef) else []
        node = next((node for node in body if getattr(node, "name", None) == name), None)
        if node is None:
            raise UserError(f"{target}: no {name} in {target.rpartition('.')[0]}")
        found = Definition(node, found.module, method=isinstance(node, ast.FunctionDef) and not _static(node))
    return found


def _static(node: ast.FunctionDef) -> bool:
    return any(ast.unparse(each) == "staticmethod" for each in node.decorator_list)


def _lookup(module_name: str, name: str | None, near: Module | None = None) -> Any:
    """What `name` is in a module: a definition, an object of the vocabulary, a module, or Unknown.

    near: the file that is read; where it is given, nothing is looked up in other packages that are installed, which
    may be large.
    """
    if name is None:
        return importlib.import_module(module_name) if module_name in _VOCABULARY else Imported(module_name)
    if module_name in _VOCABULARY:
        return getattr(importlib.import_module(module_name), name, Unknown)
    if f"{module_name}.{name}" in _VOCABULARY:
        return importlib.import_module(f"{module_name}.{name}")
    if near is not None and _is_far(module_name, near):
        return Unknown
    module = _module(module_name)
    if module is None:
        return Unknown
    its_own = module.names.get(name, itself := Imported(module_name, name)) != itself  # and not `from . import name`
    if not its_own and _file(f"{module_name}.{name}", tuple(sys.path)) is not None:
        return Imported(f"{module_name}.{name}")
    return _resolve(name, module, near) if its_own else _starred(name, module, near)


def _is_far(name: str, near: Module) -> bool:
    top, own = name.partition(".")[0], near.name.partition(".")[0]
    file = _file(top, tuple(sys.path))
    return top not in (own, "diffusion") and file is not None and "site-packages" in file.parts


def _resolve(name: str, module: Module, near: Module | None = None) -> Any:
    """The definition of a name of a file, as `_lookup`."""
    found = module.names.get(name)
    match found:
        case Imported():
            return _lookup(found.module, found.name, near)
        case ast.Name() | ast.Attribute():  # another name for it
            return dotted(found, module, near)
        case ast.AST():
            return Definition(found, module)
    return getattr(builtins, name) if name in _BUILTINS else _starred(name, module, near)


def _starred(name: str, module: Module, near: Module | None) -> Any:
    """The same, where it may come from `from ... import *`."""
    found = (_lookup(star, name, near) for star in module.stars)
    return next((each for each in found if each is not Unknown), Unknown)


def dotted(node: ast.expr, module: Module, near: Module | None = None) -> Any:
    """The definition of a name, or of a name of a name, of a file, as `_lookup`."""
    if isinstance(node, ast.Name):
        return _resolve(node.id, module, near)
    if not isinstance(node, ast.Attribute):
        return Unknown
    owner = dotted(node.value, module, near)
    if isinstance(owner, ModuleType | type) and owner is not Unknown:
        return getattr(owner, node.attr, Unknown)
    return _lookup(owner.module, node.attr, near) if isinstance(owner, Imported) else Unknown
