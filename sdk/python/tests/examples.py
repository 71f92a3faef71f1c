"""Documents of the API, as a server sends them."""

from __future__ import annotations

from typing import Any

TIMINGS = {
    "queue_us": 1,
    "start_us": 2,
    "identity_us": 3,
    "compile_us": 0,
    "run_us": 4,
    "collect_us": 5,
    "total_us": 15,
}
STAGE = {
    "cause": "exit",
    "exit_code": 0,
    "signal": None,
    "wall_time_us": 4,
    "cpu_time_us": 3,
    "peak_memory_bytes": 4096,
    "stdout_bytes": 3,
    "stdout_dropped": 0,
    "stderr_bytes": 0,
    "stderr_dropped": 0,
}


def execution(**fields: Any) -> dict[str, Any]:
    """The result of a program that printed 42."""
    return {
        "id": "e1",
        "language": "python",
        "status": "done",
        "cause": "exit",
        "exit_code": 0,
        "signal": None,
        "stdout": "42\n",
        "stderr": "",
        "run": STAGE,
        "timings": TIMINGS,
        "start": "pool",
        "memory_bytes": 402653184,
        "created_ms": 1,
        **fields,
    }


def summary(id: str = "e1", **fields: Any) -> dict[str, Any]:
    """An execution that was accepted."""
    return {"id": id, "status": "pending", "language": "python", "created_ms": 1, **fields}


def output(text: Any, stream: str = "stdout") -> dict[str, Any]:
    """The event of bytes that the program wrote."""
    return {"event": "output", "stage": "run", "stream": stream, "data": text}


def result() -> dict[str, Any]:
    """The last event."""
    return {"event": "result", **execution(stdout="")}
