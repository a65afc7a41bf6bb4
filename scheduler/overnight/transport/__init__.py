"""Transport: hints that a batch waits. Losing, doubling or delaying one costs time, never a task."""
