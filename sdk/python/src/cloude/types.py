"""The objects of the API, with its field names (`/openapi.json` of a server).

A field that a server sends and this version does not know is ignored. Times are in milliseconds (`_ms`) or
microseconds (`_us`), sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Optional, TypedDict, Union

Status = Literal["pending", "running", "done", "error"]
Cause = Literal[
    "exit",
    "signal",
    "wall_time",
    "cpu_time",
    "memory",
    "output_limit",
    "disk",
    "processes",
    "guest_panic",
    "cancelled",
    "infrastructure",
]
StageName = Literal["compile", "run"]
StreamName = Literal["stdout", "stderr"]

# Requests

Content = Union[str, bytes, Path]
"""The content of a file: text, bytes, or a local file that is read."""


@dataclass(frozen=True)
class File:
    """A file in the work directory. `path` is relative to it, `mode` has the permission bits (0o644)."""

    path: str
    content: Content
    mode: Optional[int] = None


class CompileLimits(TypedDict, total=False):
    """Limits of the compile stage."""

    wall_time_ms: int
    cpu_time_ms: int
    processes: int
    open_files: int
    file_bytes: int
    stack_bytes: int


class Limits(TypedDict, total=False):
    """Limits of an execution. The server's defaults are used for those that are absent."""

    wall_time_ms: int
    cpu_time_ms: int
    memory_bytes: int
    vcpus: int
    output_bytes: int
    artifact_bytes: int
    disk_bytes: int
    processes: int
    open_files: int
    file_bytes: int
    stack_bytes: int
    compile: CompileLimits


class TerminalSize(TypedDict):
    """The size of a terminal in characters, 1 to 1000 each."""

    columns: int
    rows: int


class Interactive(TypedDict, total=False):
    """Standard input that stays open while the program runs. With `terminal` the program has a terminal, else pipes."""

    terminal: TerminalSize


class RunOptions(TypedDict, total=False):
    """The options of an execution, besides its language and code.

    `files` is a mapping of paths to contents, or `File` objects. `secrets` are variables whose values are neither
    stored nor logged. `interactive` is for `submit` and `Job.attach`. `artifacts` are patterns of files that are part
    of the result. `idempotency_key` names the request: a server runs it once however often it is sent. Without it each
    call has a new one.
    """

    version: str
    entrypoint: str
    file_name: str
    compile_options: Sequence[str]
    files: Union[Mapping[str, Content], Iterable[File]]
    stdin: Union[str, bytes]
    interactive: Interactive
    args: Sequence[str]
    env: Mapping[str, str]
    secrets: Mapping[str, str]
    network: bool
    user: str
    unconfined: bool
    limits: Limits
    artifacts: Sequence[str]
    on_output_limit: Literal["continue", "kill"]
    labels: Mapping[str, str]
    start: Literal["cold", "fork"]
    idempotency_key: str


class SubmitOptions(RunOptions, total=False):
    """The options of a durable execution. `callback_url` gets its result in a POST request."""

    callback_url: str


# Results


def _output(name: str) -> bytes:
    """A field of bytes, which are the JSON's field `name`."""
    made: bytes = field(metadata={"json": name})
    return made


class _Text:
    """The output as text. Invalid UTF-8 is replaced by U+FFFD."""

    stdout_bytes: bytes
    stderr_bytes: bytes

    @property
    def stdout(self) -> str:
        """Standard output as text; `stdout_bytes` has the exact bytes."""
        return self.stdout_bytes.decode("utf-8", "replace")

    @property
    def stderr(self) -> str:
        """Standard error as text; `stderr_bytes` has the exact bytes."""
        return self.stderr_bytes.decode("utf-8", "replace")


@dataclass(frozen=True)
class StageResult:
    """Measurements of a stage. Here `stdout_bytes` and `stderr_bytes` are numbers of bytes written."""

    cause: Cause
    exit_code: Optional[int]
    signal: Optional[int]
    wall_time_us: int
    cpu_time_us: int
    peak_memory_bytes: int
    stdout_bytes: int
    stdout_dropped: int
    stderr_bytes: int
    stderr_dropped: int
    warm: bool = False
    message: Optional[str] = None


@dataclass(frozen=True)
class CompileReport(_Text):
    """The compile stage with its output."""

    result: StageResult
    stdout_bytes: bytes = _output("stdout")
    stderr_bytes: bytes = _output("stderr")
    shared: bool = False


@dataclass(frozen=True)
class Timings:
    """Durations of an execution's phases."""

    queue_us: int
    start_us: int
    compile_us: int
    run_us: int
    total_us: int
    identity_us: int = 0
    collect_us: int = 0


@dataclass(frozen=True)
class Artifact:
    """A file that the program left. `Client.artifact` reads it."""

    path: str
    bytes: int
    mode: int


@dataclass(frozen=True)
class Denied:
    """Dropped packets of one kind."""

    protocol: str
    reason: Literal["destination", "port", "rate", "source", "protocol", "malformed"]
    times: int
    address: Optional[str] = None
    port: Optional[int] = None


@dataclass(frozen=True)
class NetworkReport:
    """Traffic that was denied."""

    denied: list[Denied]
    denied_others: int = 0


@dataclass(frozen=True)
class Execution(_Text):
    """The result of an execution.

    `exit_code` is the compiler's if that failed. `error` has the reason if `status` is `error`: it could not be run.
    """

    id: str
    language: str
    status: Status
    cause: Cause
    exit_code: Optional[int]
    signal: Optional[int]
    timings: Timings
    start: Literal["cold", "fork", "pool"]
    stdout_bytes: bytes = _output("stdout")
    stderr_bytes: bytes = _output("stderr")
    version: Optional[str] = None
    image_digest: Optional[str] = None
    compile: Optional[CompileReport] = None
    run: Optional[StageResult] = None
    memory_bytes: int = 0
    ip: Optional[str] = None
    network: Optional[NetworkReport] = None
    artifacts: list[Artifact] = field(default_factory=list)
    artifacts_dropped: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    created_ms: int = 0
    error: Optional[str] = None


@dataclass(frozen=True)
class ExecutionSummary:
    """An execution without its output."""

    id: str
    status: Status
    language: str
    created_ms: int
    cause: Optional[Cause] = None
    exit_code: Optional[int] = None
    labels: dict[str, str] = field(default_factory=dict)
    finished_ms: Optional[int] = None


@dataclass(frozen=True)
class ExecutionList:
    """A page of executions."""

    executions: list[ExecutionSummary]
    next_cursor: Optional[str] = None


@dataclass(frozen=True)
class LanguageInfo:
    """A language of the server."""

    name: str
    aliases: list[str]
    extensions: list[str]
    image_ready: bool
    version: Optional[str] = None
    image_digest: Optional[str] = None
    image_age_s: Optional[int] = None


@dataclass(frozen=True)
class Usage:
    """What the executions of an API key used."""

    key: str
    executions: int
    vm_ms: int
    cpu_ms: int
    memory_mib_s: int


# Events


@dataclass(frozen=True)
class AcceptedTerminal:
    """The size of the program's terminal at its start."""

    columns: int
    rows: int


@dataclass(frozen=True)
class AcceptedInteractive:
    """The program takes input; `terminal` is none if it has pipes."""

    terminal: Optional[AcceptedTerminal] = None


@dataclass(frozen=True)
class Accepted:
    """The request was accepted."""

    id: str
    interactive: Optional[AcceptedInteractive] = None


@dataclass(frozen=True)
class Started:
    """A stage was started."""

    stage: StageName


@dataclass(frozen=True)
class Output:
    """Bytes that a stage wrote."""

    stage: StageName
    stream: StreamName
    data: bytes

    @property
    def text(self) -> str:
        """The bytes as text. Invalid UTF-8 is replaced by U+FFFD."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True)
class Dropped:
    """Bytes beyond the output limit are missing here."""

    stage: StageName
    stream: StreamName
    bytes: int


@dataclass(frozen=True)
class Restarted:
    """The execution runs anew after a restart of the server: the events so far are void."""

    id: str


@dataclass(frozen=True)
class Result:
    """The last event. The output of `execution` is empty: it was sent as events."""

    execution: Execution


Event = Union[Accepted, Started, Output, Dropped, Restarted, Result]
