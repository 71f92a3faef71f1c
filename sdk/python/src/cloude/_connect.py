"""The server's address, the API key and the certificates: arguments, else the variables that `cloude` reads."""

from __future__ import annotations

import ipaddress
import os
import ssl
from dataclasses import dataclass
from typing import Any, Optional

import httpx

from ._version import __version__

DEFAULT_URL = "http://127.0.0.1:8080"


@dataclass(frozen=True)
class Address:
    """A base URL, and the Unix socket to connect to, if any."""

    base: str
    socket: Optional[str]
    shown: str

    @property
    def local(self) -> bool:
        """True for a socket and a loopback address, which no proxy can reach."""
        host = httpx.URL(self.base).host
        if self.socket is not None or host == "localhost":
            return True
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def address(url: Optional[str]) -> Address:
    """`http://HOST:PORT`, `https://HOST`, `HOST:PORT` or `unix:/PATH`; else `CLOUDE_BACKEND`."""
    text = url or os.environ.get("CLOUDE_BACKEND") or DEFAULT_URL
    if text.startswith("unix:"):
        path = text[len("unix:") :]
        if not path.startswith("/"):
            raise ValueError(f"{text}: the path of a Unix socket must be absolute")
        return Address("http://localhost/", path, text)
    full = text if "://" in text else f"http://{text}"
    try:
        parsed = httpx.URL(full)
    except httpx.InvalidURL as error:
        raise ValueError(f"{text}: {error}: use http://HOST:PORT, https://HOST or unix:/PATH") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{text}: use http://HOST:PORT, https://HOST or unix:/PATH")
    return Address(full.rstrip("/") + "/", None, full.rstrip("/"))


def api_key(key: Optional[str]) -> Optional[str]:
    """The key without white space; else `CLOUDE_API_KEY`."""
    text = (key or os.environ.get("CLOUDE_API_KEY") or "").strip()
    if not text:
        return None
    if not text.startswith("cloude_") or not text.isascii() or any(letter.isspace() for letter in text):
        raise ValueError("the API key is not one of Cloude: it begins with cloude_ (CLOUDE_API_KEY)")
    return text


def settings(to: Address, key: Optional[str], ca: Optional[str], timeout: Optional[float]) -> dict[str, Any]:
    """The arguments of httpx.Client and httpx.AsyncClient, but for the transport."""
    headers = {"user-agent": f"cloude-python/{__version__}"}
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    return {
        "base_url": to.base,
        "headers": headers,
        "timeout": httpx.Timeout(timeout, connect=10.0),
        "verify": _trust(ca or os.environ.get("CLOUDE_CA")),
        "trust_env": not to.local,
        "follow_redirects": False,
    }


def _trust(ca: Optional[str]) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca:
        context.load_verify_locations(ca)
    return context
