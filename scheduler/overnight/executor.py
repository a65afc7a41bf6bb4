"""The interface of everything that executes a task graph (BEHAVIOUR X1 to X3)."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

from overnight.graph import Task, TaskGraph

_logger = logging.getLogger(__name__)


class TaskGraphExecutor:
    """Executes a task graph. As a context it closes itself; an error of closing is a warning, never an exception.

    A subclass that lacks a method can be built all the same: calling what it lacks raises NotImplementedError.
    """

    @abstractmethod
    def execute(self, graph: TaskGraph) -> Iterator[tuple[Task, Any]]:
        """Yield each task that ran with its result, after it finished; a failed task's result is its exception.

        Nothing happens before the first `next`. Closing the iterator gives the run up.
        """
        self._lacks("execute")

    @abstractmethod
    def get_completed_tasks(
        self,
        graph: TaskGraph,
    ) -> Generator[tuple[Task, Any], None, None]:
        """Yield the tasks of the graph that need not run, with their stored results."""
        self._lacks("get_completed_tasks")

    @abstractmethod
    def close(self) -> None:
        """Release what the executor holds; may be called again."""
        self._lacks("close")

    def _lacks(self, method: str) -> NoReturn:
        raise NotImplementedError(f"{type(self).__name__} does not implement {method}().")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> Literal[False]:
        try:
            self.close()
        except Exception as error:  # closing comes after the results; whatever it raises must not hide them
            _logger.warning("%s could not be closed: %s", type(self).__name__, error, exc_info=True)
        # Typed as never swallowing; without an exception the documented answer is True.
        return exc_type is None  # type: ignore[return-value]
