"""Pictures by address: only from hosts that are allowed by name, only from public addresses, no redirects."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from bagel.app.server.problems import ApiError

SECONDS = 10.0
"""For a whole picture, however slowly the other side sends it."""


def fetch(url: str, hosts: Sequence[str], most: int) -> bytes:
    """The content behind an https address, at most `most` bytes. Raises ApiError; what the other side said is
    not told, so that nobody can look around through this server."""
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port or 443
    except ValueError:
        raise ApiError(400, "a picture's address is no valid URL.", "invalid_image_url") from None
    if parts.scheme != "https" or not host:
        raise ApiError(400, "a picture must be a data URL, data:image/png;base64,...", "invalid_image_url")
    if host not in hosts or port != 443 or parts.username is not None:
        text = "pictures are not fetched from this address; send the picture as a data URL."
        raise ApiError(400, text, "image_url_not_allowed")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not target.isascii() or any(letter <= " " for letter in target):
        raise ApiError(400, "a picture's address is no valid URL.", "invalid_image_url")
    try:
        return _get(host, _public_address(host), target, most)
    except (OSError, http.client.HTTPException, ValueError):
        raise ApiError(400, "the picture could not be fetched from its address.", "image_url_failed") from None


def _get(host: str, address: str, target: str, most: int) -> bytes:
    """The connection goes to the address that was checked, whatever the name means a moment later."""
    end = time.monotonic() + SECONDS
    with socket.create_connection((address, 443), timeout=SECONDS) as plain:
        secure = ssl.create_default_context().wrap_socket(plain, server_hostname=host)
        connection = http.client.HTTPSConnection(host, timeout=SECONDS)
        connection.sock = secure
        try:
            connection.request("GET", target, headers={"User-Agent": "bagel", "Accept": "image/*"})
            found = connection.getresponse()
            content = b""
            while len(content) <= most and (piece := found.read1(min(most + 1 - len(content), 65536))):
                content += piece
                if time.monotonic() > end:
                    raise TimeoutError
        finally:
            connection.close()
    if found.status != 200:
        raise ValueError(found.status)
    if len(content) > most:
        raise ApiError(413, f"the picture behind the address has more than {most:,} bytes.", "image_too_large")
    return content


def _public_address(host: str) -> str:
    """The host's address. Raises ApiError where any of its addresses lies inside a network of our own."""
    found = {str(entry[4][0]) for entry in socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM)}
    if not found or not all(ipaddress.ip_address(address.partition("%")[0]).is_global for address in found):
        text = "pictures are not fetched from this address; send the picture as a data URL."
        raise ApiError(400, text, "image_url_not_allowed")
    return min(found)
