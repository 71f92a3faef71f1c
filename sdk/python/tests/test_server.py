"""The clients against a server: `tools/tests/sdk server`, or CLOUDE_TEST_BACKEND with its URL."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import typing
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Connect

import cloude
from cloude import _decode, types

URL = os.environ.get("CLOUDE_TEST_BACKEND", "")
pytestmark = pytest.mark.skipif(not URL, reason="there is no server: tools/tests/sdk server starts one")

ECHO = """
import os, pathlib, sys
print(input(), sys.argv[1:], os.environ["X"], os.environ["S"], pathlib.Path("data/in.bin").read_bytes())
print("oops", file=sys.stderr)
sys.exit(3)
"""


def test_a_program_gets_its_input_and_its_end_is_told(connect: Connect) -> None:
    result = connect(URL).run(
        "python", ECHO, stdin="hello\n", args=["a"], env={"X": "1"}, secrets={"S": "2"}, files={"data/in.bin": b"\xff"}
    )
    assert result.stdout == "hello ['a'] 1 2 b'\\xff'\n"
    assert result.stderr == "oops\n"
    assert (result.status, result.cause, result.exit_code, result.signal) == ("done", "exit", 3, None)
    assert result.version.startswith("Python 3")
    assert result.run.cpu_time_us > 0


def test_output_that_is_no_text_is_exact(connect: Connect) -> None:
    result = connect(URL).run("python", r"import sys; sys.stdout.buffer.write(b'\xff\x00a')")
    assert result.stdout_bytes == b"\xff\x00a"


def test_artifacts_come_back(connect: Connect) -> None:
    client = connect(URL)
    code = "import os; os.mkdir('out'); open('out/a b.bin', 'wb').write(b'\\xff' * 3); open('no.log', 'w')"
    result = client.run("python", code, artifacts=["out/*"])
    assert [(item.path, item.bytes) for item in result.artifacts] == [("out/a b.bin", 3)]
    assert client.artifacts(result.id) == result.artifacts
    assert client.artifact(result.id, "out/a b.bin") == b"\xff" * 3
    with pytest.raises(cloude.NotFound):
        client.artifact(result.id, "no.log")


def test_a_limit_ends_the_program(connect: Connect) -> None:
    result = connect(URL).run("python", "print('on', flush=True)\nwhile True: pass", limits={"wall_time_ms": 2000})
    assert (result.cause, result.stdout) == ("wall_time", "on\n")


def test_a_stream_ends_with_the_result(connect: Connect) -> None:
    code = "import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr); sys.exit(5)"
    events = list(connect(URL).stream("python", code))
    texts: dict[str, str] = {"stdout": "", "stderr": ""}
    for event in events:
        if isinstance(event, cloude.Output):
            texts[event.stream] += event.text
    assert texts == {"stdout": "out\n", "stderr": "err\n"}
    assert isinstance(events[0], cloude.Accepted)
    assert events[-1].execution.exit_code == 5


def test_leaving_a_stream_cancels_the_execution(connect: Connect) -> None:
    client = connect(URL)
    stream = client.stream("python", "print('on', flush=True)\nwhile True: pass")
    id = ""
    for event in stream:
        if isinstance(event, cloude.Accepted):
            id = event.id
        if isinstance(event, cloude.Output):
            break
    stream.close()
    assert client.job(id).wait().cause == "cancelled"


def test_a_job_is_waited_for_listed_and_read(connect: Connect) -> None:
    client = connect(URL)
    label = str(uuid.uuid4())
    job = client.submit("python", "print('0123456789')", labels={"test": label})
    result = job.wait()
    assert (result.id, result.stdout, result.labels) == (job.id, "0123456789\n", {"test": label})
    assert job.status().status == "done"
    assert client.output(job.id, "stdout", start=4) == b"456789\n"
    other = client.submit("python", "1", labels={"test": label})
    other.wait()
    found = list(client.executions(labels={"test": label}, page_size=1))
    assert [item.id for item in found] == [other.id, job.id]
    again = [event for event in job.events() if isinstance(event, cloude.Output)]
    assert "".join(event.text for event in again) == "0123456789\n"


def test_a_job_can_be_cancelled(connect: Connect) -> None:
    job = connect(URL).submit("python", "while True: pass")
    assert job.cancel().cause == "cancelled"
    assert job.wait().status == "error"


def test_one_key_is_one_execution(connect: Connect) -> None:
    client = connect(URL)
    key = str(uuid.uuid4())
    first = client.run("python", "print(1)", idempotency_key=key)
    assert client.run("python", "print(1)", idempotency_key=key).id == first.id
    with pytest.raises(cloude.IdempotencyConflict):
        client.run("python", "print(2)", idempotency_key=key)


def test_refusals_name_the_field(connect: Connect) -> None:
    client = connect(URL)
    requests: list[tuple[str, dict[str, Any]]] = [
        ("language", {"language": "klingon"}),
        ("limits.memory_bytes", {"language": "python", "limits": {"memory_bytes": 1 << 50}}),
    ]
    for field, options in requests:
        with pytest.raises(cloude.BadRequest) as caught:
            client.run(code="1", **options)
        assert caught.value.field == field
    with pytest.raises(cloude.NotFound):
        client.job(str(uuid.uuid4())).status()


def test_languages_and_usage_are_listed(connect: Connect) -> None:
    client = connect(URL)
    assert "python" in [language.name for language in client.languages()]
    client.run("python", "1")
    assert sum(item.executions for item in client.usage()) > 0


def test_a_stream_survives_a_crash_of_the_server(connect: Connect) -> None:
    harness = os.environ.get("CLOUDE_TEST_SERVER_PID")
    if harness is None:
        pytest.skip("only the server of tools/tests/sdk is killed")
    code = "import time\nprint('begin', flush=True)\ntime.sleep(10)\nprint('end')"
    outputs: list[str] = []
    restarts = 0
    for event in connect(URL, max_retries=100).stream("python", code):
        if isinstance(event, cloude.Output):
            outputs.append(event.text)
            if not restarts and len(outputs) == 1:
                os.kill(int(harness), signal.SIGUSR1)  # kill -9, and a new start
        elif isinstance(event, cloude.Restarted):
            restarts += 1
            outputs.clear()
    assert restarts == 1
    assert "".join(outputs) == "begin\nend\n"


def test_the_types_have_the_fields_of_the_api() -> None:
    response = httpx.get(f"{URL}/openapi.json", trust_env=False)
    if response.status_code == 404:
        pytest.skip("this server has no /openapi.json")
    schemas = response.json()["components"]["schemas"]
    kinds: list[type] = [
        types.Artifact,
        types.CompileReport,
        types.Denied,
        types.Execution,
        types.ExecutionList,
        types.ExecutionSummary,
        types.LanguageInfo,
        types.NetworkReport,
        types.StageResult,
        types.Timings,
        types.Usage,
    ]
    for kind in kinds:
        ours = {name for _, name, _ in _decode.fields(kind)}
        assert ours == set(schemas[kind.__name__]["properties"]), kind.__name__
    requests = {
        "Limits": types.Limits.__annotations__,
        "CompileLimits": types.CompileLimits.__annotations__,
        "File": dict.fromkeys(("path", "content", "mode")),
        "ExecutionRequest": {**types.SubmitOptions.__annotations__, "language": str, "code": str},
    }
    for name, fields in requests.items():
        assert set(fields) - {"idempotency_key"} == set(schemas[name]["properties"]), name
    for name, literal in (("Status", types.Status), ("Cause", types.Cause)):
        assert set(typing.get_args(literal)) == set(_values(schemas[name])), name


def _values(schema: dict[str, Any]) -> list[str]:
    """The values of an enum, which are alternatives of one value where each has a description."""
    alternatives = [value for item in schema.get("oneOf", []) for value in item.get("enum", [item.get("const")])]
    return alternatives or list(schema["enum"])


def test_the_first_example_of_the_readme_prints_what_it_says() -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    (code, wanted), *_ = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", readme, re.S)
    environment = {**os.environ, "CLOUDE_BACKEND": URL}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=1200)
    assert (run.stdout, run.stderr) == (wanted, "")
