"""The values of annotations and defaults, found from their source without running it."""

import ast
import operator
from collections.abc import Mapping, Sequence
from dataclasses import InitVar
from types import ModuleType
from typing import Any, TypedDict, Union, is_typeddict

from diffusion.config.python_source import Definition, Imported, Module, Unknown, dotted

_WRAPPERS = ("Required", "NotRequired", "ReadOnly", "Final")  # they do not restrict the value


def annotation_of(node: ast.expr, module: Module) -> Any:
    """The value of an annotation, with Unknown for classes."""
    match node:
        case ast.Constant(str(text)):
            try:
                return annotation_of(ast.parse(text.strip(), mode="eval").body, module)
            except SyntaxError:
                return Unknown
        case ast.Constant(value):
            return value if value in (None, ...) else Unknown
        case ast.BinOp(left, ast.BitOr(), right):
            return Union[annotation_of(left, module), annotation_of(right, module)]  # noqa: UP007
        case ast.Subscript(value, index):
            return _subscripted(value, index, module)
        case ast.List(items):  # of Callable[[...], ...]
            return [annotation_of(item, module) for item in items]
        case ast.Call(function, [_, ast.Dict(keys, values)]) if dotted(function, module, module) is TypedDict:
            pairs = [(key, value) for key, value in zip(keys, values, strict=True) if key is not None]
            return _section("Section", {value_of(key, module): annotation_of(value, module) for key, value in pairs})
        case ast.Name() | ast.Attribute():
            return meaning(dotted(node, module, module))
    return Unknown


def meaning(found: Any) -> Any:
    """The annotation that a name stands for, as `dotted` found it; Unknown if it is no annotation."""
    if not isinstance(found, Definition):
        return Unknown if isinstance(found, ModuleType | Imported) else found
    if isinstance(found.node, ast.ClassDef):
        return _section_of(found.node, found.module)
    return annotation_of(found.node, found.module) if isinstance(found.node, ast.expr) else Unknown


def _section_of(node: ast.ClassDef, module: Module) -> Any:
    """A TypedDict in the source as a TypedDict at run time; Unknown for another class."""
    keys, is_section = {}, False
    for base in node.bases:
        above = meaning(dotted(base, module, module))
        if above is TypedDict or is_typeddict(above):
            is_section = True
            keys |= getattr(above, "__annotations__", {})
    if not is_section:
        return Unknown
    for each in node.body:
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
            keys[each.target.id] = annotation_of(each.annotation, module)
    return _section(node.name, keys)


def _section(name: str, keys: dict[str, Any]) -> Any:
    return TypedDict(name, keys)  # pyright: ignore[reportArgumentType] (its keys are known only when it runs)


def _subscripted(value: ast.expr, index: ast.expr, module: Module) -> Any:
    base = annotation_of(value, module)
    items = index.elts if isinstance(index, ast.Tuple) else [index]
    name = getattr(base, "_name", None) or getattr(base, "__name__", None)
    try:
        if base is Unknown:
            return Unknown
        if name in _WRAPPERS or base is InitVar:
            return annotation_of(items[0], module)
        if name == "Literal":
            return base[tuple(value_of(item, module) for item in items)]
        if name == "Annotated":
            return base[(annotation_of(items[0], module), *(_metadata(item, module) for item in items[1:]))]
        arguments = [annotation_of(item, module) for item in items]
        return base[tuple(arguments) if len(arguments) > 1 else arguments[0]]
    except (TypeError, NoLiteralError):
        return Unknown


def _metadata(node: ast.expr, module: Module) -> Any:
    try:
        return value_of(node, module)
    except NoLiteralError:
        return annotation_of(node, module)  # a TypedDict; Unknown if of another library


class NoLiteralError(Exception):
    """The expression has to be run for its value."""


_OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Pow: operator.pow,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}


def value_of(node: ast.expr, module: Module) -> Any:
    """The value of an expression of constants, names of constants, and calls of the vocabulary such as Ge(1)."""
    match node:
        case ast.Constant(value):
            return value
        case ast.Tuple(items) | ast.List(items):
            values = [value_of(item, module) for item in items]
            return tuple(values) if isinstance(node, ast.Tuple) else values
        case ast.Dict(keys, values) if None not in keys:
            pairs = zip(keys, values, strict=True)
            return {value_of(key, module): value_of(value, module) for key, value in pairs if key is not None}
        case ast.UnaryOp(kind, operand) if type(kind) in _OPERATORS:
            return _OPERATORS[type(kind)](value_of(operand, module))
        case ast.BinOp(left, kind, right) if type(kind) in _OPERATORS:
            return _OPERATORS[type(kind)](value_of(left, module), value_of(right, module))
        case ast.Call(function, arguments, keywords) if all(each.arg for each in keywords):
            called = dotted(function, module, module)
            if isinstance(called, type) and called is not Unknown:
                given = {str(each.arg): value_of(each.value, module) for each in keywords}
                return _called(called, [value_of(each, module) for each in arguments], given)
        case ast.Name() | ast.Attribute():
            found = dotted(node, module, module)
            if isinstance(found, Definition) and isinstance(found.node, ast.expr):
                return value_of(found.node, found.module)
            if not isinstance(found, Definition | Imported | ModuleType) and found is not Unknown:
                return found
    raise NoLiteralError


def _called(cls: type, arguments: Sequence[Any], given: Mapping[str, Any]) -> Any:
    try:
        return cls(*arguments, **given)
    except (TypeError, ValueError):
        raise NoLiteralError from None
