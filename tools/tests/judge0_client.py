"""judge0_client.py URL PROGRAMS: the client judge0 and plain HTTP against a server, each call with its answer.

PROGRAMS names a table of judge0_programs.json: no code there may be valid base64, which the client would decode.
CLOUDE_TEST_CLIENTS: requests at once (64).
"""

import base64
import concurrent.futures
import json
import os
import sys
import urllib.error
import urllib.request

os.environ["JUDGE0_SUPPRESS_PREVIEW_WARNING"] = "1"

import judge0
from judge0 import Status
from judge0.retry import RegularPeriodRetry

URL, TABLE = sys.argv[1:]
with open(f"{os.path.dirname(os.path.abspath(__file__))}/judge0_programs.json", encoding="utf-8") as file:
    PROGRAMS = json.load(file)[TABLE]
AT_ONCE = int(os.environ.get("CLOUDE_TEST_CLIENTS", "64"))
# Limits that also hold on a slow host.
PATIENCE_S = 60
failures = []


def check(who, call, found, expected):
    """Prints a call and its answer, and notes a difference."""
    print(f"{who}: {call} -> {found!r}")
    if found != expected:
        failures.append(f"{who}: {call}: {found!r}, expected {expected!r}")


def language(program):
    """The client's name of the program's language."""
    return {"python": judge0.PYTHON, "c": judge0.C}[PROGRAMS[program]["language"]]


def submission(program, code=None, limit=PATIENCE_S, **fields):
    """A submission of a program of the table."""
    return judge0.Submission(
        source_code=code or PROGRAMS[program]["code"], language=language(program), wall_time_limit=limit, **fields
    )


def by_the_package():
    """Every call of the package that a server of one's own can answer."""
    who = "judge0 0.0.8"
    client = judge0.Client(endpoint=URL, retry_strategy=RegularPeriodRetry())
    check(who, "version", client.version, "1.13.1")
    check(who, "languages, 71", [item.name.split(" ")[0] for item in client.languages if item.id == 71], ["Python"])
    check(who, "get_language 50", client.get_language(50).source_file, "main.c")
    check(who, "get_statuses", len(client.get_statuses()), 14)
    check(who, "config, batch size", client.config.max_submission_batch_size, 20)
    check(who, "is_language_supported", client.is_language_supported(judge0.BASIC), False)

    def run(**arguments):
        return judge0.run(client=client, **arguments)

    for program, status, fields, arguments in [
        ("hello", Status.ACCEPTED, {"stdout": "hello"}, {"expected_output": "hello\n"}),
        ("hello", Status.WRONG_ANSWER, {"stdout": "hello"}, {"expected_output": "hallo"}),
        (
            "echo",
            Status.ACCEPTED,
            {"stdout": "in a b"},
            {"stdin": "in", "command_line_arguments": "a b", "expected_output": "in a b"},
        ),
        ("forever", Status.TIME_LIMIT_EXCEEDED, {}, {"limit": 1}),
        ("uncompilable", Status.COMPILATION_ERROR, {"stdout": None, "exit_code": None}, {}),
        ("compiled", Status.ACCEPTED, {"stdout": "hello"}, {}),
        ("segment", Status.RUNTIME_ERROR_SIGSEGV, {"exit_signal": 11}, {}),
        ("arithmetic", Status.RUNTIME_ERROR_SIGFPE, {"exit_signal": 8}, {}),
        ("aborted", Status.RUNTIME_ERROR_SIGABRT, {"exit_signal": 6}, {}),
        ("exit", Status.RUNTIME_ERROR_NZEC, {"exit_code": 3, "stderr": "bye\n"}, {}),
        ("killed", Status.RUNTIME_ERROR_OTHER, {"exit_signal": 9}, {}),
    ]:
        answer = run(submissions=submission(program, **arguments))
        check(
            who, f"run {program}", (answer.status, {name: getattr(answer, name) for name in fields}), (status, fields)
        )
    check(who, "created before finished", answer.created_at <= answer.finished_at, True)
    check(who, "time and memory", (answer.time >= 0, answer.memory > 0), (True, True))

    cases = [judge0.TestCase(input=None, expected_output=text) for text in ("hello", "other")]
    answers = run(source_code=PROGRAMS["hello"]["code"], language=judge0.PYTHON, test_cases=cases)
    check(who, "run with test cases", [it.status for it in answers], [Status.ACCEPTED, Status.WRONG_ANSWER])

    if "files" in PROGRAMS:
        data = judge0.File(name="data/in.txt", content="from a file")
        files = judge0.Filesystem(content=[data])
        answer = run(submissions=submission("files", additional_files=files))
        check(who, "run with additional files", answer.stdout, "from a file")

    numbers = [str(number) for number in range(AT_ONCE)]
    code = PROGRAMS["number"]["code"]
    many = [submission("number", code.replace("NUMBER", number), expected_output=number) for number in numbers]
    answers = run(submissions=many)
    own = [answer.stdout for answer in answers] == numbers
    accepted = all(answer.status == Status.ACCEPTED for answer in answers)
    check(who, f"{AT_ONCE} submissions in batches, each its own answer", (own, accepted), (True, True))

    def one(number):
        return run(submissions=submission("number", code.replace("NUMBER", number))).stdout

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        check(who, f"{AT_ONCE} clients at once, each its own answer", list(pool.map(one, numbers)) == numbers, True)


def http(method, path, body=None):
    """Status and JSON of a request as the documentation of Judge0 describes it."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=600) as response:
            status, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    return status, json.loads(text)


def by_plain_http():
    """The requests of the documentation."""
    who = "HTTP"
    body = {"language_id": 71, "source_code": PROGRAMS["hello"]["code"], "wall_time_limit": PATIENCE_S}
    path = "/submissions/?base64_encoded=false&wait=true&fields=stdout,stderr,status,exit_code"
    expected = {
        "stdout": "hello",
        "stderr": None,
        "status": {"id": 3, "description": "Accepted"},
        "exit_code": 0,
    }
    check(who, f"POST {path}", http("POST", path, body), (201, expected))
    status, created = http("POST", "/submissions", body)
    check(who, "POST /submissions", (status, list(created)), (201, ["token"]))
    token = created["token"]
    while http("GET", f"/submissions/{token}?fields=status_id")[1]["status_id"] < 3:
        pass
    text = base64.b64encode(b"hello").decode() + "\n"
    path = f"/submissions/{token}?base64_encoded=true&fields=stdout,status_id"
    check(who, "GET /submissions/TOKEN, base64", http("GET", path), (200, {"stdout": text, "status_id": 3}))
    path = f"/submissions/batch?tokens={token},none&fields=stdout"
    expected = {"submissions": [{"stdout": "hello"}, None]}
    check(who, "GET /submissions/batch", http("GET", path), (200, expected))
    check(
        who,
        "DELETE /submissions/TOKEN",
        http("DELETE", f"/submissions/{token}?fields=status_id"),
        (200, {"status_id": 3}),
    )
    check(who, "GET /submissions/TOKEN, deleted", http("GET", f"/submissions/{token}")[0], 404)
    expected = {"language_id": ["language with id 89 doesn't exist"]}
    check(
        who,
        "POST /submissions, language 89",
        http("POST", "/submissions", {**body, "language_id": 89}),
        (422, expected),
    )
    check(
        who,
        "POST /submissions, no code",
        http("POST", "/submissions", {"language_id": 71}),
        (422, {"source_code": ["can't be blank"]}),
    )
    batch = {"submissions": [body] * 21}
    check(who, "POST /submissions/batch, 21", http("POST", "/submissions/batch", batch)[0], 400)


by_the_package()
by_plain_http()
if failures:
    sys.exit("\n".join(failures))
