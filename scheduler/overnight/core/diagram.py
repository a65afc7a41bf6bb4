"""The diagram of the task states, drawn from the table of transitions."""

from __future__ import annotations

from overnight.core.states import TERMINAL, TRANSITIONS, TaskState


def mermaid() -> str:
    """Return the state diagram as Mermaid text: an arrow for each transition, terminal states in bold outline."""
    lines = [
        "stateDiagram-v2",
        "    classDef terminal stroke-width:3px",
        f"    [*] --> {TaskState.PENDING.name}: SUBMIT",
    ]
    lines += [f"    {old.name} --> {new.name}: {_label(reason)}" for (old, new), reason in TRANSITIONS.items()]
    lines += [f"    class {state.name} terminal" for state in sorted(TERMINAL)]
    return "\n".join(lines) + "\n"


def _label(reason: str) -> str:
    """Return the reason without a colon, which would end a label in Mermaid."""
    return reason.replace(":", ",")
