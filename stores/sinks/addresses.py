"""Which addresses may be posted to: public ones, unless private ones are allowed.

A name is resolved once, every address is looked at, and the connection goes to one of those: so a name server that
gives another answer a moment later (DNS rebinding) gains nothing.
"""

import ipaddress
import socket
from collections.abc import Sequence
from functools import partial
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

from stores.sinks.sending import LaterError, Undeliverable
from stores.sinks.threads import in_thread

_IPV6: Final = ipaddress.IPv6Network("2000::/3")  # all that is given out to the open Internet
_NOT_PUBLIC: Final = (
    ipaddress.IPv6Network("2001::/23"),  # for protocols, Teredo among them
    ipaddress.IPv6Network("2002::/16"),  # 6to4, which leads to an IPv4 address
    ipaddress.IPv6Network("3fff::/20"),  # for documentation
)
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_RELAY: Final = ipaddress.IPv4Network("192.88.99.0/24")  # of 6to4, given up
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})


async def addresses_of(thread: str, host: str, port: int, *, allow_private: bool) -> list[ResolveResult]:
    """Return the addresses of `host`, asked for in a thread of that name.

    Raises LaterError if it has none now, Undeliverable if one of them is not allowed.
    """
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    try:
        found = await in_thread(thread, ask)
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
    """Whether an address is one of the open Internet.

    Of IPv6 that is what is given out, without the ways to an IPv4 address, but for NAT64 to a public one: networks
    without IPv4 reach everything through it.
    """
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return is_public(str(ipaddress.IPv4Address(address.packed[-4:])))
        way = int.from_bytes(address.packed[8:12], "big") in _ISATAP or any(address in each for each in _NOT_PUBLIC)
        return address in _IPV6 and address.is_global and not way
    return address.is_global and not address.is_multicast and address not in _RELAY


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
