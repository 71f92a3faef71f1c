"""piston_clients.py URL PROGRAMS: aiopyston, piston-rspy and websockets against a server, each call with its answer.

PROGRAMS names a table of piston_programs.json. CLOUDE_TEST_CLIENTS: requests at once (64).
"""

import asyncio
import json
import os
import sys

import piston_rspy
import pyston
from pyston.exceptions import ExecutionError, InvalidLanguage
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

URL, TABLE = sys.argv[1:]
with open(f"{os.path.dirname(os.path.abspath(__file__))}/piston_programs.json", encoding="utf-8") as file:
    PROGRAMS = json.load(file)[TABLE]
AT_ONCE = int(os.environ.get("CLOUDE_TEST_CLIENTS", "64"))
PATIENCE_MS = 60_000
# Code, signal, and output of both streams; None: only that there is some.
EXPECTED = {
    "hello": (0, None, "hello"),
    "echo": (0, None, "in a b"),
    "exit": (3, None, "bye\n"),
    "signal": (None, "SIGSEGV", ""),
    "forever": (None, "SIGKILL", ""),
    "compiled": (0, None, "hello"),
    "uncompilable": (1, None, None),
}
UNKNOWN = "cow-* runtime is unknown"
failures = []


def check(client, call, found, expected):
    """Prints a call and its answer, and notes a difference."""
    print(f"{client}: {call} -> {found!r}")
    if found != expected:
        failures.append(f"{client}: {call}: {found!r}, expected {expected!r}")


def check_stages(client, name, run, compile_stage):
    """The run stage of a program; that of the compiler is there for C alone, and is the same if it failed."""
    code, signal, output = EXPECTED[name]
    found = (run.code, run.signal, run.output)
    if output is None and run.output:
        found = (run.code, run.signal, None)
        print(f"{client}: {name}: the compiler says {run.output.splitlines()[0]!r}")
    check(client, f"execute {name}", found, (code, signal, output))
    is_compiled = PROGRAMS[name]["language"] == "c"
    check(client, f"execute {name}, compile stage", compile_stage is not None, is_compiled)


def check_runtimes(client, runtimes):
    names = {runtime.language: runtime for runtime in runtimes}
    check(client, "runtimes, aliases of python", "py" in names["python"].aliases, True)
    check(client, "runtimes, aliases of c++", "cpp" in names["c++"].aliases, True)
    check(client, "runtimes, version", names["python"].version.count("."), 2)


async def aiopyston():
    name = "aiopyston"
    client = pyston.PystonClient(base_url=f"{URL}/api/v2/piston/")

    async def run(program, code=None, limit=PATIENCE_MS, version="*"):
        program = PROGRAMS[program]
        return await client.execute(
            program["language"],
            [pyston.File(code or program["code"])],
            version=version,
            stdin="in",
            args=["a", "b"],
            run_timeout=limit,
            compile_timeout=PATIENCE_MS,
        )

    try:
        check_runtimes(name, await client.runtimes())
        check(name, "languages, javascript", "javascript" in await client.languages(), True)
        for program in EXPECTED:
            answer = await run(program, limit=1000 if program == "forever" else PATIENCE_MS)
            check_stages(name, program, answer.run_stage, answer.compile_stage)
            if program == "forever":
                check(name, "status of forever", answer.raw_json["run"]["status"], "TO")
        version = (await client.get_runtimes("py"))[0].version
        check(name, f"execute hello, version {version}", str(await run("hello", version=version)), "hello")
        try:
            await client.execute("cow", [pyston.File("moo")])
        except ExecutionError as error:
            check(name, "execute cow", str(error), UNKNOWN)
        try:
            await client.get_runtimes("cow")
        except InvalidLanguage as error:
            check(name, "get_runtimes cow", str(error), "Language cow not found")
        code = PROGRAMS["number"]["code"]
        numbers = [str(number) for number in range(AT_ONCE)]
        answers = await asyncio.gather(*(run("number", code.replace("NUMBER", number)) for number in numbers))
        same = [answer.run_stage.stdout for answer in answers] == numbers
        check(name, f"{AT_ONCE} executions at once, each its own answer", same, True)
    finally:
        await client.close_session()


async def rspy():
    name = "piston-rspy"
    client = piston_rspy.Client.with_url(f"{URL}/api/v2")
    check_runtimes(name, await client.fetch_runtimes())
    for program, text in PROGRAMS.items():
        if program not in EXPECTED:
            continue
        executor = (
            piston_rspy.Executor()
            .set_language(text["language"])
            .set_version("*")
            .add_file(piston_rspy.File(name="", content=text["code"]))
            .set_stdin("in")
            .add_args(["a", "b"])
            .set_run_timeout(1000 if program == "forever" else PATIENCE_MS)
            .set_compile_timeout(PATIENCE_MS)
        )
        answer = await client.execute(executor)
        check(
            name, f"execute {program}, is_ok", (answer.is_ok(), answer.run.is_ok()), (True, EXPECTED[program][0] == 0)
        )
        check_stages(name, program, answer.run, answer.compile)
    executor = piston_rspy.Executor(language="cow", files=[piston_rspy.File(content="moo")])
    answer = await client.execute(executor)
    check(name, "execute cow", (answer.status, UNKNOWN in answer.run.stderr), (400, True))


async def websocket():
    """The WebSocket: a dialogue, the end of input, a signal, and the codes of mistakes."""
    name = "websockets"
    program = PROGRAMS["talk"]
    init = {"type": "init", "language": program["language"], "version": "*", "files": [{"content": program["code"]}]}
    data = {"type": "data", "stream": "stdin"}
    url = f"ws{URL.removeprefix('http')}/api/v2/connect"

    async def talk(*messages):
        """Sends each message when the server is ready for it; the messages of the server, and the code of the end."""
        got = []
        async with connect(url, proxy=None) as connection:
            left = list(messages)
            await connection.send(json.dumps(left.pop(0)))
            try:
                while True:
                    message = json.loads(await connection.recv())
                    got.append(message)
                    if message["type"] in ("stage", "data") and left:
                        await connection.send(json.dumps(left.pop(0)))
            except ConnectionClosed as closed:
                return got, closed.rcvd.code

    end = {**data, "data": "b\n", "eof": True}
    got, code = await talk(init, {**data, "data": "a\n"}, end)
    types = [message["type"] for message in got]
    check(name, "types of messages", types, ["runtime", "stage", "data", "data", "exit"])
    check(name, "output", "".join(message["data"] for message in got if message["type"] == "data"), "a\nb\n")
    check(name, "exit", (got[-1], code), ({"type": "exit", "stage": "run", "code": 0, "signal": None}, 4999))
    got, code = await talk(init, {"type": "signal", "signal": "SIGKILL"})
    killed = {"type": "exit", "stage": "run", "code": None, "signal": "SIGKILL"}
    check(name, "exit after SIGKILL", (got[-1], code), (killed, 4999))
    for call, messages, expected in (
        ("init twice", (init, init), 4000),
        ("init of cow", ({**init, "language": "cow"},), 4002),
        ("data before init", (data,), 4003),
        ("data for stdout", (init, {**data, "stream": "stdout"}), 4004),
        ("an unknown signal", (init, {"type": "signal", "signal": "SIGNOPE"}), 4005),
    ):
        check(name, call, (await talk(*messages))[1], expected)


async def main():
    await aiopyston()
    await rspy()
    await websocket()
    if failures:
        sys.exit("\n".join(failures))


asyncio.run(main())
