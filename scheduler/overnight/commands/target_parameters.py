"""Parameters of a target: texts from the command line, converted as the callable's annotations say."""

from __future__ import annotations

import ast
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from overnight.errors import UsageError, nearest
from overnight.naming import shown

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})
_FROM_DEFAULT = (bool, int, float, Path)
_TAKES_NAMES = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def split_parameters(given: Sequence[str]) -> dict[str, str]:
    """Return name and text of each ``name=value``. Raises UsageError for one without ``=`` or given twice."""
    texts: dict[str, str] = {}
    for item in given:
        name, equals, text = item.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise UsageError(f"A parameter is name=value, not {item!r}.")
        if name in texts:
            raise UsageError(f"Parameter {shown(name)} is given twice.")
        texts[name] = text
    return texts


def converted(function: Callable[..., Any], texts: Mapping[str, str], target: str) -> dict[str, Any]:
    """Return the keyword arguments of `function` for the texts.

    Raises UsageError for an unknown or missing parameter and for a text that does not fit the annotation; `target`
    names the callable in the message.
    """
    known = _parameters(function)
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values())
    named = {name: parameter for name, parameter in known.items() if parameter.kind in _TAKES_NAMES}
    unknown = [name for name in texts if name not in named]
    if unknown and not takes_any:
        hint = nearest(unknown[0], list(named))
        raise UsageError(f"{target} has no parameter {unknown[0]!r}{hint} {_offer(named)}")
    missing = [name for name, known in named.items() if known.default is known.empty and name not in texts]
    if missing:
        wanted = " ".join(f"-p {name}=..." for name in missing)
        raise UsageError(f"{target} needs {wanted}. {_offer(named)}")
    return {name: _value(name, text, named.get(name)) for name, text in texts.items()}


def names_in_source(target: str) -> list[str]:
    """Return the parameters of a target's function as its file in this directory spells them; nothing is imported.

    None of a target that is not a function at the top of a file or module here.
    """
    place, _, name = target.rpartition(":")
    file = Path(place) if place.endswith(".py") else Path(*place.split(".")).with_suffix(".py") if place else None
    try:
        tree = ast.parse(file.read_bytes()) if file is not None else ast.Module([], [])
    except (OSError, SyntaxError, ValueError):
        return []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return [argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)]
    return []


def spelled(value: Any) -> str:
    """Return the one text for all those that are converted to the same value: ``yes`` and ``1`` are ``true``."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function, eval_str=True).parameters
    except (TypeError, ValueError):  # a built-in tells no signature
        return {}
    except Exception:  # an annotation that cannot be evaluated here: its text tells enough
        return inspect.signature(function).parameters


def _offer(named: Mapping[str, inspect.Parameter]) -> str:
    if not named:
        return "It takes none."
    return f"It takes {', '.join(_described(parameter) for parameter in named.values())}."


def _described(parameter: inspect.Parameter) -> str:
    kind = _kind(parameter)
    text = f"{parameter.name} ({_kind_name(kind)}" if kind is not str else f"{parameter.name} (text"
    return text + (")" if parameter.default is parameter.empty else f", default {shown(repr(parameter.default))})")


def _kind(parameter: inspect.Parameter | None) -> Any:
    """Return the type to convert to: the annotation, else that of the default, else str."""
    if parameter is None:
        return str
    if parameter.annotation is not parameter.empty and parameter.annotation is not Any:
        return parameter.annotation
    kind = type(parameter.default)
    return kind if kind in _FROM_DEFAULT else str


def _kind_name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _value(name: str, text: str, parameter: inspect.Parameter | None) -> Any:
    kind = _kind(parameter)
    choices = _choices(kind)
    convertible = [choice for choice in choices if choice in _CONVERTERS]
    if not convertible:
        raise UsageError(
            f"Parameter {name} is annotated {_kind_name(kind)}, which a command line cannot give; "
            "it can give int, float, bool, Path and str."
        )
    for choice in convertible:
        try:
            return _CONVERTERS[choice](text)
        except ValueError:
            continue
    wanted = " or ".join(_EXPECTED[choice] for choice in convertible)
    raise UsageError(f"Parameter {name} must be {wanted}, not {text!r}.")


def _choices(kind: Any) -> list[Any]:
    """Return the types of a union, text last because every value fits it; names of types for their types."""
    members = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    members = tuple(_BY_NAME.get(member, member) if isinstance(member, str) else member for member in members)
    return sorted((member for member in members if member is not type(None)), key=lambda member: member is str)


def _truth(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE | _FALSE:
        raise ValueError(text)
    return word in _TRUE


_CONVERTERS: dict[Any, Callable[[str], Any]] = {int: int, float: float, bool: _truth, Path: Path, str: str}
_EXPECTED = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    str: "a text",
}
_BY_NAME: dict[str, Any] = {kind.__name__: kind for kind in _EXPECTED}
