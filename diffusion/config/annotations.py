"""Annotations and defaults that are read and not run: what they would be if they were."""

import ast
import operator
from collections.abc import Mapping, Sequence
from dataclasses import InitVar
from types import ModuleType
from typing import Any, TypedDict, Union, is_typeddict

from diffusion.config.source import Definition, Imported, Module, Unknown, dotted

_WRAPPERS = ("Required", "NotRequired", "ReadOnly", "Final")  # they say nothing of the value


def annotation_of(node: ast.expr, module: Module) -> Any:
    """What an annotation is when it runs, with Unknown in the place of classes."""
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
            types = (annotation_of(value, module) for value in values)
            return _section("Section", dict(zip((value_of(key, module) for key in keys), types, strict=True)))
        case ast.Name() | ast.Attribute():
            return meaning(dotted(node, module, module))
    return Unknown


def meaning(found: Any) -> Any:
    """The annotation that a name stands for, as `dotted` found it; Unknown where it is none."""
    if not isinstance(found, Definition):
        return Unknown if isinstance(found, ModuleType | Imported) else found
    if isinstance(found.node, ast.ClassDef):
        return _section_of(found)
    return annotation_of(found.node, found.module) if isinstance(found.node, ast.expr) else Unknown


def _section_of(found: Definition) -> Any:
    """A TypedDict of the source as one that runs; Unknown for another class."""
    keys, is_section = {}, False
    for base in found.node.bases:
        above = dotted(base, found.module, found.module)
        above = meaning(above)
        if above is TypedDict or is_typeddict(above):
            is_section = True
            keys |= getattr(above, "__annotations__", {})
    if not is_section:
        return Unknown
    own = [node for node in found.node.body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    keys |= {node.target.id: annotation_of(node.annotation, found.module) for node in own}
    return _section(found.node.name, keys)


def _section(name: str, keys: dict[str, Any]) -> Any:
    return TypedDict(name, keys)


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
        arguments = tuple(annotation_of(item, module) for item in items)
        return base[arguments if len(arguments) > 1 else arguments[0]]
    except (TypeError, NoLiteralError):
        return Unknown


def _metadata(node: ast.expr, module: Module) -> Any:
    try:
        return value_of(node, module)
    except NoLiteralError:
        return annotation_of(node, module)  # a TypedDict; Unknown of another library: not ours to say what it means


class NoLiteralError(Exception):
    """Only a program that runs the expression knows its value."""


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
            return {value_of(key, module): value_of(value, module) for key, value in zip(keys, values, strict=True)}
        case ast.UnaryOp(kind, operand) if type(kind) in _OPERATORS:
            return _OPERATORS[type(kind)](value_of(operand, module))
        case ast.BinOp(left, kind, right) if type(kind) in _OPERATORS:
            return _OPERATORS[type(kind)](value_of(left, module), value_of(right, module))
        case ast.Call(function, arguments, keywords) if all(each.arg for each in keywords):
            called = dotted(function, module, module)
            if isinstance(called, type) and called is not Unknown:
                given = {each.arg: value_of(each.value, module) for each in keywords}
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
