"""The addresses at which the owner says that peers are: those in the settings, and those of DNS names there. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from hfpeer.net.address import Address


class ConfiguredAddresses:
    """`static` are the addresses in the settings. A name has the addresses that the DNS gave it last."""

    def __init__(self) -> None:
        self.static: set[Address] = set()
        self._of_names: dict[str, frozenset[Address]] = {}

    def __contains__(self, address: Address) -> bool:
        return address in self.static or any(address in of_name for of_name in self._of_names.values())

    def lists_any(self, addresses: Iterable[Address]) -> bool:
        """Whether one of these addresses is configured."""
        return any(address in self for address in addresses)

    def name_of(self, addresses: Iterable[Address]) -> str:
        """A name that has one of these addresses, else ""."""
        wanted = set(addresses)
        return next((name for name, of_name in self._of_names.items() if not wanted.isdisjoint(of_name)), "")

    def set_name(self, name: str, addresses: Collection[Address]) -> tuple[list[Address], list[Address]]:
        """Gives a name its addresses of now. Returns those that it did not have before, and those that it has no
        more."""
        earlier = self._of_names.pop(name, frozenset())
        if addresses:
            self._of_names[name] = frozenset(addresses)
        new = [address for address in dict.fromkeys(addresses) if address not in earlier]
        return new, [address for address in earlier if address not in addresses]
