"""One attempt of a task, as it is given to the process that is to run it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn


@dataclass(frozen=True, slots=True)
class AttemptOrder:
    """Everything that an attempt in a child needs; fields as the parameters of `invoke.attempt`.

    `load` stands for function and arguments where only the child is to load them, and returns the three.
    """

    task_id: str
    func: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    timeout: float | None = None
    log_dir: str | None = None
    verbosity: int = 0
    run_id: str = ""
    attempt: int = 1
    load: Callable[[], tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]] | None = None

    def loaded(self) -> AttemptOrder:
        """Return the order with function and arguments; one that cannot be loaded raises why when it is run."""
        if self.load is None:
            return self
        try:
            func, args, kwargs = self.load()
        except BaseException as error:  # a user's module or class may raise anything: it is the task's failure
            func, args, kwargs = raise_error, (error,), {}
        return replace(self, func=func, args=args, kwargs=kwargs, load=None)


def raise_error(error: BaseException) -> NoReturn:
    """Raise the error: the function of a task whose own one cannot be loaded."""
    raise error
