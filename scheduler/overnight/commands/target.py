"""A target: ``package.module:callable`` or ``path/to/file.py:callable``, the callable making a TaskGraph.

Modules are found as for ``python -m``: from the current directory first. A file gets the module name that its place
gives it, and the directory from which that name is found joins ``sys.path``, which travels with the run: what the
file defines is importable, and so picklable by name, on every worker.

What is wrong with a target is told by its author's file and line; no frame of overnight's own is shown.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from overnight.commands.interrupts import Interrupted
from overnight.commands.target_parameters import converted, spelled, split_parameters
from overnight.error_text import error_text
from overnight.errors import GraphError, OvernightError, UsageError, nearest
from overnight.graph import TaskGraph
from overnight.naming import shown
from overnight.shadowing import keep_library_whole

_FORMS = "package.module:callable or path/to/file.py:callable"
_OWN = str(Path(__file__).parents[1])
_OF_A_SIGNATURE = re.compile(r"TaskGraph\.\w+\(\) ")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the callable is: in the module or file `place`, under the possibly dotted `name`."""

    place: str
    name: str

    @property
    def is_file(self) -> bool:
        """Tell whether `place` is the path of a file."""
        return self.place.endswith(".py") or "/" in self.place

    def __str__(self) -> str:
        return shown(f"{self.place}:{self.name}")


def parse_target(text: str) -> Target:
    """Return the parts of a target; UsageError if it has none of the two forms."""
    place, _, name = text.rpartition(":")
    if not place or not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"A target is {_FORMS}, not {text!r}.")
    target = Target(place, name)
    if not target.is_file and not all(part.isidentifier() for part in place.split(".")):
        raise UsageError(f"{place!r} is neither a module's name nor a .py file: a target is {_FORMS}.")
    return target


def build_graph(target: Target, given: Sequence[str] = ()) -> TaskGraph:
    """Return the graph that the target's callable makes of the parameters ``name=value``.

    Raises UsageError for what was typed or cannot be imported, GraphError for a graph that cannot be made.
    """
    function = _callable(target, _module(target))
    arguments = converted(function, split_parameters(given), str(target))
    try:
        graph = function(**arguments)
    except GraphError as error:
        raise GraphError(f"{target} makes no valid graph: {error} ({_told_at(error)})") from error
    except (OvernightError, Interrupted, KeyboardInterrupt):
        raise
    except BaseException as error:  # the target's own code may raise anything
        if _is_of_the_graph(error):
            raise GraphError(f"{target} makes no valid graph: {_described(error)}.") from error
        raise UsageError(f"{target} failed: {_described(error)}.") from error
    if not isinstance(graph, TaskGraph):
        raise UsageError(f"{target} returned {_article(type(graph).__name__)}; a target returns a TaskGraph.")
    return graph


def spelled_parameters(target: Target, given: Sequence[str]) -> dict[str, str]:
    """Return name and text of the parameters, one text for all spellings of a value. Raises UsageError."""
    function = _callable(target, _module(target))
    return {name: spelled(value) for name, value in converted(function, split_parameters(given), str(target)).items()}


def _module(target: Target) -> ModuleType:
    _find_from_here()
    name = _importable(target) if target.is_file else target.place
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise UsageError(
                f"There is no module {error.name!r}: {target} is looked for from {Path.cwd()}, then where "
                f"{sys.executable} has its packages."
            ) from error
        raise UsageError(f"{target} cannot be imported: {_described(error)}.") from error
    except (Interrupted, KeyboardInterrupt):
        raise
    except BaseException as error:  # likewise
        raise UsageError(f"{target} cannot be imported: {_described(error)}.") from error


def _find_from_here() -> None:
    """Put the current directory first on the path, in place of that of the command's own script."""
    script = str(Path(sys.argv[0] or ".").resolve().parent)
    if sys.path and sys.path[0] == script:
        del sys.path[0]
    keep_library_whole()
    here = str(Path.cwd())
    if not sys.path or sys.path[0] not in ("", here):
        sys.path.insert(0, here)


def _importable(target: Target) -> str:
    """Return the module name of a file and see that it is found under it. Raises UsageError."""
    file = Path(target.place).absolute()
    if not file.is_file():
        close = get_close_matches(file.name, [path.name for path in file.parent.glob("*.py")], n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"There is no file {target.place!r}{hint or '.'}")
    root, parts = file.parent, [file.stem]
    while (root / "__init__.py").is_file():
        root, parts = root.parent, [root.name, *parts]
    name = ".".join(parts)
    if not all(part.isidentifier() for part in parts):
        raise UsageError(
            f"{target.place!r} cannot be imported on workers: {name!r} is no module name. Rename the "
            "file, with letters, digits and '_' only."
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    _check_unambiguous(name, root, file)
    return name


def _check_unambiguous(name: str, root: Path, file: Path) -> None:
    top, is_inside, _ = name.partition(".")
    expected = root / top / "__init__.py" if is_inside else file
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:  # a module that was made by hand, such as __main__
        spec = None
    origin = spec.origin if spec else None
    if top in sys.stdlib_module_names or origin is None or Path(origin).resolve() != expected.resolve():
        raise UsageError(
            f"{shown(str(file))} has the name of another module, {top} ({shown(origin or 'built-in')}), so workers "
            "could not tell them apart. Rename the file."
        )


def _callable(target: Target, module: ModuleType) -> Callable[..., Any]:
    found: Any = module
    for part in target.name.split("."):
        if not hasattr(found, part):
            known = [name for name, value in vars(found).items() if callable(value) and not name.startswith("_")]
            own = [name for name in known if getattr(vars(found)[name], "__module__", None) == module.__name__]
            offer = f" It has {', '.join(sorted(own)[:20])}." if own else ""
            raise UsageError(f"{shown(target.place)} has no {part!r}{nearest(part, known)}{offer}")
        found = getattr(found, part)
    if not callable(found):
        raise UsageError(
            f"{target} is {_article(type(found).__name__)}; a target is a function that returns a TaskGraph."
        )
    function: Callable[..., Any] = found
    return function


def _is_of_the_graph(error: BaseException) -> bool:
    """Tell whether a method that makes a graph refused what it was given: by its signature, or in its own code."""
    if not isinstance(error, TypeError):
        return False
    last = traceback.extract_tb(error.__traceback__)[-1]
    return last.filename.startswith(_OWN) or _OF_A_SIGNATURE.match(str(error)) is not None


def _described(error: BaseException) -> str:
    """Return type, message and place of an exception of the target's own code, in one line."""
    text = str(error.code) if isinstance(error, SystemExit) else error_text(error).message
    message = shown(text.strip().rstrip("."))
    kind = type(error).__name__
    if isinstance(error, SyntaxError) and error.filename:
        return f"{kind}: {shown(error.msg)} ({_place(error.filename, error.lineno)})"
    return f"{kind}: {message} ({_told_at(error)})" if message else f"{kind} ({_told_at(error)})"


def _told_at(error: BaseException) -> str:
    """Return file and line of the last frame that is neither the import system's nor overnight's own."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    foreign = [frame for frame in frames if not frame.filename.startswith((_OWN, "<"))]
    last = (foreign or frames)[-1]
    return _place(last.filename, last.lineno)


def _place(file: str, line: int | None) -> str:
    path = Path(file)
    with_here = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    return f"{shown(str(with_here))}, line {line}"


def _article(name: str) -> str:
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"
