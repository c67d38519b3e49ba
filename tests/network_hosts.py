"""Two hosts on one machine: network namespaces that a pair of virtual Ethernet devices connects. Needs root."""

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Host:
    """A host: its address, and the command that runs another one on it."""

    address: str
    inside: tuple[str, ...]

    def without(self, folders: Sequence[Path]) -> list[str]:
        """The command that runs another one on this host, where these folders are other, empty ones."""
        hide = " && ".join(f"mount -t tmpfs none '{folder}'" for folder in folders)
        return [*self.inside, "unshare", "--mount", "sh", "-c", f'{hide} && exec "$@"', "sh"]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def obstacle() -> str | None:
    """Why no hosts can be made here; None if they can."""
    try:
        with two_hosts() as (_, second):
            command = second.without([Path("/tmp")])
            subprocess.run([*command, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"network and mount namespaces cannot be made: {error}"
    return None


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts that reach each other. OSError or CalledProcessError if this process may not make them."""
    number = os.getpid() % 250
    names = [f"dlx-{os.getpid()}-{n}" for n in (1, 2)]
    devices = [f"dlx{os.getpid()}v{n}" for n in (1, 2)]
    hosts = [Host(f"10.213.{number}.{n}", ("ip", "netns", "exec", name)) for n, name in enumerate(names, 1)]
    made = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip("link", "add", devices[0], "type", "veth", "peer", "name", devices[1])
        for name, device, host in zip(names, devices, hosts, strict=True):
            ip("link", "set", device, "netns", name)
            ip("-n", name, "addr", "add", f"{host.address}/24", "dev", device)
            ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield hosts[0], hosts[1]
    finally:
        for name in made:  # with their devices
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)
