"""The parameters of the constructor at an import path, read from its source: nothing is imported, so it is quick."""

import ast
import functools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, NamedTuple, get_args, get_origin, is_typeddict

from diffusion.config.annotations import NoLiteralError, annotation_of, meaning, value_of
from diffusion.config.python_source import Definition, Module, Unknown, definition, dotted
from diffusion.config.value_parsers import Kind, Of, kind_of
from diffusion.ground.errors import UserError


class Default(Enum):
    """A default that is missing or unknown."""

    REQUIRED = "there is none"
    COMPUTED = "an expression that has to be run"


class Parameter(NamedTuple):
    """A parameter of a constructor, or a key of a TypedDict.

    kind: None without an annotation that is understood. default: its value, or one of `Default`. nested: the
    keys, where the annotation is a TypedDict.
    """

    kind: Kind | None
    default: Any = Default.REQUIRED
    nested: Mapping[str, "Parameter"] | None = None


REST = "**"  # the name of any other keyword argument


def parameters(target: str) -> dict[str, Parameter]:
    """The parameters of the class or function at an import path, such as `diffusion.samplers.ddim.DDIM`, by name; of a
    TypedDict its keys.

    Those that a constructor passes to `super().__init__(**names)` are included. Raises UserError if there is no such
    path, or where its file cannot be parsed.
    """
    return dict(_parameters(target, tuple(sys.path)))


@functools.cache
def _parameters(target: str, _: tuple[str, ...]) -> dict[str, Parameter]:
    found = definition(target)
    section = meaning(found)
    if is_typeddict(section):
        return _keys(section)
    if isinstance(found.node, ast.ClassDef):
        return _of_constructor(_lineage(found.node, found.module))
    if isinstance(found.node, ast.FunctionDef):
        return _of_function(found.node, found.module, bound=found.method)
    raise UserError(f"{target}: neither a class nor a function in {found.module.file}")


def docstrings(target: str) -> list[str]:
    """Of the class or function at an import path; of a class also those of its constructor and of its bases."""
    found = definition(target)
    node = found.node
    if isinstance(node, ast.ClassDef):
        written = [each for one, _ in _lineage(node, found.module) for each in (one, _constructor(one))]
    else:
        written = [node]
    documented = (each for each in written if isinstance(each, ast.ClassDef | ast.FunctionDef))
    return [text for each in documented if (text := ast.get_docstring(each))]


def _constructor(node: ast.ClassDef) -> ast.FunctionDef | None:
    own = (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__")
    return next(own, None)


_Class = tuple[ast.ClassDef, Module]


def _lineage(node: ast.ClassDef, module: Module) -> Iterator[_Class]:
    """A class and the classes that it inherits from, where their source is found, nearest first."""
    yield node, module
    for base in node.bases:
        above = dotted(base.value if isinstance(base, ast.Subscript) else base, module)
        if isinstance(above, Definition) and isinstance(above.node, ast.ClassDef) and above.node is not node:
            yield from _lineage(above.node, above.module)


def _of_constructor(lineage: Iterable[_Class]) -> dict[str, Parameter]:
    for node, module in lineage:
        if (constructor := _constructor(node)) is not None:
            return _of_function(constructor, module, bound=True, above=lineage)
        if _is_dataclass(node):
            return _of_dataclass([(node, module), *lineage])
    return {}


def _of_function(
    node: ast.FunctionDef, module: Module, bound: bool, above: Iterable[_Class] = ()
) -> dict[str, Parameter]:
    """bound: whether the first argument is self. above: the classes to which it may pass its `**names`."""
    args = node.args
    given = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(given) - len(args.defaults)) + args.defaults
    pairs = [*zip(given + args.kwonlyargs, defaults + args.kw_defaults, strict=True)][bound:]
    own = {arg.arg: _parameter(arg.annotation, default, module) for arg, default in pairs}
    if args.kwarg is None:
        return own
    call = _super_call(node, args.kwarg.arg)
    if call is None:
        return {**own, REST: Parameter(None)}
    filled = {keyword.arg for keyword in call.keywords}
    inherited = _of_constructor(above)
    return own | {name: each for name, each in inherited.items() if name not in filled | own.keys()}


def _super_call(node: ast.FunctionDef, name: str) -> ast.Call | None:
    """The call super().__init__(..., **name) in a function."""
    for call in ast.walk(node):
        match call:
            case ast.Call(ast.Attribute(ast.Call(ast.Name("super")), "__init__"), _, keywords):
                if any(each.arg is None and getattr(each.value, "id", None) == name for each in keywords):
                    return call
    return None


def _is_dataclass(node: ast.ClassDef) -> bool:
    names = (each.func if isinstance(each, ast.Call) else each for each in node.decorator_list)
    return any(ast.unparse(name).rpartition(".")[2] == "dataclass" for name in names)


def _of_dataclass(lineage: Sequence[_Class]) -> dict[str, Parameter]:
    fields = {}
    for owner, module in reversed([each for each in lineage if _is_dataclass(each[0])]):
        for node in owner.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                fields |= _field(node, node.target.id, module)
    return fields


def _field(node: ast.AnnAssign, name: str, module: Module) -> dict[str, Parameter]:
    whole = node.annotation.value if isinstance(node.annotation, ast.Subscript) else node.annotation
    if dotted(whole, module) is ClassVar or ast.unparse(whole).rpartition(".")[2] == "KW_ONLY":
        return {}
    default = node.value
    if isinstance(default, ast.Call) and ast.unparse(default.func).rpartition(".")[2] == "field":
        given = {keyword.arg: keyword.value for keyword in default.keywords}
        if isinstance(init := given.get("init"), ast.Constant) and init.value is False:
            return {}
        factory = given.get("default_factory")
        default = given.get("default") or (None if factory is None else ast.Call(factory, [], []))
    return {name: _parameter(node.annotation, default, module)}


def _parameter(annotation: ast.expr | None, default: ast.expr | None, module: Module) -> Parameter:
    return _described(Unknown if annotation is None else annotation_of(annotation, module), _default(default, module))


def _described(annotation: Any, default: Any = Default.REQUIRED) -> Parameter:
    parts = (annotation, *get_args(annotation))  # of Annotated, or of a section or null
    nested = (keys for part in parts if (keys := _nested(part)) is not None)
    return Parameter(kind_of(annotation), default, next(nested, None))


def _nested(part: Any) -> Mapping[str, Parameter] | None:
    """The keys of a section."""
    if is_typeddict(part):
        return _keys(part)
    if isinstance(part, Of):
        return parameters(part.target)
    if get_origin(part) is Mapping and (kind := kind_of(get_args(part)[1])) is not kind_of(Any):
        return {REST: Parameter(kind)}
    return None


def _keys(section: Any) -> dict[str, Parameter]:
    return {name: _described(annotation) for name, annotation in section.__annotations__.items()}


def _default(node: ast.expr | None, module: Module) -> Any:
    if node is None:
        return Default.REQUIRED
    try:
        return value_of(node, module)
    except NoLiteralError:
        return Default.COMPUTED
