"""Modules of a project that are named like one of the standard library.

Python gives such a module to whoever imports that name, also to the library itself and to installed packages. The
command loads the user's target into its own process: `keep_library_whole` has everything but the user's own code find
the library's module there. Where tasks run nothing is changed, and `shadowing` says which file a failure came of.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import FrameType, ModuleType

from overnight.own_frames import is_users

_LIBRARY = str(Path(os.__file__).parent)
_PLACES = [_LIBRARY, str(Path(_LIBRARY, "lib-dynload"))]
_IMPORT_SYSTEM = ("<frozen importlib", str(Path(_LIBRARY, "importlib")) + os.sep)


def shadowing(error: BaseException) -> str | None:
    """Say of an error about a module which file took the place of the library's, or has its name in vain."""
    name, found = _module_at_fault(error)
    if name not in sys.stdlib_module_names or not found:
        return None
    if not found.startswith(_LIBRARY + os.sep):
        return f"{found} takes the place of the standard library's module {name}: rename that file"
    hidden = next((path for path in _files(name) if not path.startswith(_LIBRARY + os.sep)), None)
    if hidden is None:
        return None
    return f"{hidden} is not found, as the standard library has a module {name}: rename that file"


def _module_at_fault(error: BaseException) -> tuple[str, str]:
    """Return the top-level name and the file of the module that lacks something; empty texts for another error."""
    if isinstance(error, ImportError):
        name = (error.name or "").partition(".")[0]
        return name, error.path or _file_of(sys.modules.get(name))
    if isinstance(error, AttributeError) and isinstance(error.obj, ModuleType):
        return error.obj.__name__.partition(".")[0], _file_of(error.obj)
    return "", ""


def _file_of(module: ModuleType | None) -> str:
    file = getattr(module, "__file__", None)
    return file if isinstance(file, str) else ""


def _files(name: str) -> list[str]:
    """Return the files on the path that could be the module `name`."""
    files = [Path(place or ".").absolute() / f"{name}.py" for place in sys.path if isinstance(place, str)]
    return [str(file) for file in files if os.path.isfile(file)]  # noqa: PTH113 - Path.is_file raises where it may not look


class _LibraryFirst(MetaPathFinder):
    """Finds the library's modules in the library for all importers but the user's own code."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return where a module of the library lies; None leaves it to the finders that follow."""
        if path is not None or fullname not in sys.stdlib_module_names or _importer_is_users(sys._getframe(1)):  # noqa: SLF001 - who imports is told nowhere else
            return None
        return importlib.machinery.PathFinder.find_spec(fullname, _PLACES)


def _importer_is_users(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename.startswith(_IMPORT_SYSTEM):
        frame = frame.f_back
    return frame is not None and is_users(frame.f_code.co_filename)


def keep_library_whole() -> None:
    """Have the library's modules found in the library, except by the user's own code. May be repeated."""
    if not any(isinstance(finder, _LibraryFirst) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LibraryFirst())
