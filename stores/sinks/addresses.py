"""Which addresses may be posted to: public ones, unless private ones are allowed.

A name is resolved once, every address is looked at, and the connection goes to one of those: so a name server that
gives another answer a moment later (DNS rebinding) gains nothing.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

from stores.sinks.sending import LaterError, Undeliverable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


async def addresses_of(thread: Executor, host: str, port: int, *, allow_private: bool) -> list[ResolveResult]:
    """Return the addresses of `host`, asked for in `thread`.

    Raises LaterError if it has none now, Undeliverable if one of them is not allowed.
    """
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        found = await asyncio.get_running_loop().run_in_executor(thread, ask)
    except (OSError, UnicodeError) as error:
        raise LaterError(f"the name {host} could not be resolved") from error
    addresses = [(family, str(address[0])) for family, _, _, _, address in found]
    for _, address in addresses:
        if not (allow_private or is_public(address)):
            raise Undeliverable(f"the address of {host} is not public, and allow_private is not set")
    return [
        ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST)
        for family, address in addresses
    ]


def is_public(text: str) -> bool:
    """Whether an address is one of the open Internet, also where it has another in it, as IPv6 transition gives."""
    address = ipaddress.ip_address(text)
    return all(each.is_global and not each.is_multicast for each in (address, *_within(address)))


def _within(address: Address) -> list[Address]:
    """Return the IPv4 addresses that an IPv6 address leads to: mapped, 6to4, Teredo and NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(ipaddress.IPv4Address(address.packed[-4:]))
    return [each for each in found if each is not None]


class Checked(AbstractResolver):
    """Gives the addresses that were checked, whatever is asked."""

    def __init__(self, addresses: Sequence[ResolveResult]) -> None:
        self._addresses = list(addresses)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the checked addresses."""
        return self._addresses

    async def close(self) -> None:
        """There is nothing to close."""
