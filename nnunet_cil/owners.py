"""Processes, so described that they are known again: who writes a file, and whether that process is still there."""

from __future__ import annotations

import hashlib
import os
import re
import socket
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

_TOKEN = re.compile(r"([0-9a-f]{8})-([0-9a-f]{8})-([0-9a-f]{8})-(\d+)-(\d+)")


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A process.

    Its ID alone does not name it: IDs are used again, containers count their own, and a disk may be shared. So its start counts,
    too, in time since the machine was started, which setting the clock does not change.

    Attributes:
        host: a hash of the machine's name and ID.
        boot: a hash that changes when the machine is started again.
        namespace: a hash of the container in which ``pid`` counts.
        pid: the process's ID.
        start: hundredths of a second between the machine's start and the process's.
    """

    host: str
    boot: str
    namespace: str
    pid: int
    start: int

    @property
    def token(self) -> str:
        """The process as a part of a file's name."""
        return f"{self.host}-{self.boot}-{self.namespace}-{self.pid}-{self.start}"

    @property
    def state(self) -> Literal["running", "gone", "unknown"]:
        """Tells whether the process is still there; ``unknown`` on another machine, or in another container."""
        own = current_owner()
        if self.host != own.host:
            return "unknown"
        if self.boot != own.boot:
            return "gone"
        if self.namespace != own.namespace:
            return "unknown"
        start = start_of(self.pid)
        return "running" if start is not None and abs(start - self.start) <= _CLOCK_ERROR else "gone"


_CLOCK_ERROR = 200
"""By so many hundredths of a second two readings of a process's start may differ."""


def read_token(text: str) -> Owner | None:
    """Returns the process that a token names; None for other text."""
    match = _TOKEN.fullmatch(text)
    if match is None:
        return None
    host, boot, namespace, pid, start = match.groups()
    return Owner(host=host, boot=boot, namespace=namespace, pid=int(pid), start=int(start))


def current_user() -> int:
    """Returns the number of the user; 0 on Windows, as of its files."""
    return os.getuid() if hasattr(os, "getuid") else 0


def current_owner() -> Owner:
    """Returns this process, which may be a fork of another one."""
    return _owner(os.getpid())


@cache
def _owner(pid: int) -> Owner:
    machine = f"{socket.gethostname()} {_read('/etc/machine-id')}"
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    start = start_of(pid)
    assert start is not None
    boot = _read("/proc/sys/kernel/random/boot_id")
    return Owner(host=_hash(machine), boot=_hash(boot), namespace=_hash(namespace), pid=pid, start=start)


def start_of(pid: int) -> int | None:
    """Returns when a process was started, as ``Owner.start``; None if there is none, or only what is left of it."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        start_s: float = process.create_time() - psutil.boot_time()
    except psutil.Error:
        return None
    return round(100 * start_s)


def _read(file: str) -> str:
    """Returns the text of a file of Linux; empty elsewhere."""
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
