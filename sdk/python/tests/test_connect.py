"""The server's address and the API key."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import Connect
from examples import execution
from support import Reply, Server

import cloude


def test_a_unix_socket_is_an_address(connect: Connect, tmp_path: Path) -> None:
    with Server(Reply(200, execution()), socket=str(tmp_path / "api.sock")) as server:
        assert connect(server.url).run("python", "1").exit_code == 0
    assert server.requests[0].headers["host"] == "localhost"


def test_address_and_key_come_from_the_environment(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server(Reply(200, execution())) as server:
        monkeypatch.setenv("CLOUDE_BACKEND", server.url.replace("http://", ""))
        monkeypatch.setenv("CLOUDE_API_KEY", " cloude_1_2\n")
        connect("").run("python", "1")
    assert server.requests[0].headers["authorization"] == "Bearer cloude_1_2"
    assert server.requests[0].headers["user-agent"] == f"cloude-python/{cloude.__version__}"


def test_a_path_of_the_url_is_kept(connect: Connect) -> None:
    with Server(Reply(200, [])) as server:
        connect(f"{server.url}/behind/proxy").languages()
    assert server.requests[0].path == "/behind/proxy/v1/languages"


def test_a_proxy_is_not_used_for_loopback(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://192.0.2.1:9")
    with Server(Reply(200, [])) as server:
        assert connect(server.url, timeout=5).languages() == []


@pytest.mark.parametrize("url", ["unix:api.sock", "ftp://host", "http://", "http://host:port"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="must be absolute|use http://"):
        cloude.Client(url)


def test_a_key_of_something_else_is_refused() -> None:
    for key in ("sk-123", "cloude_1 2", "cloude_é"):
        with pytest.raises(ValueError, match="begins with cloude_") as caught:
            cloude.Client(api_key=key)
        assert key not in str(caught.value)


def test_a_missing_file_of_authorities_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        cloude.Client(ca="/nonexistent.pem")
