"""Processes that end with the one that started them, also where that one is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

_MARKS = "NNUNET_CIL_MARKS"
"""The environment variable that a started process, and whatever it starts, carries: one mark for each call, outer ones first."""

_GRACE_S = 5.0
"""How long a process that is left over may take to end by itself."""

_PR_SET_PDEATHSIG = 1
"""Asks Linux to send this process a signal when its parent has ended."""


@contextmanager
def started(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Starts a process whose output goes to the end of ``log``, and ends what is left of it afterwards.

    nnU-Net's data workers live on when the process that started them is killed. They are found by a mark in their
    environment: they may have another parent and another process group by then.
    """
    mark = uuid.uuid4().hex
    marks = os.pathsep.join(filter(None, [environment.get(_MARKS, ""), mark]))
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            env={**environment, _MARKS: marks},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    except BaseException:
        with suppress(ValueError):  # Windows, where Ctrl-C has reached it
            process.send_signal(signal.SIGINT)
        raise
    finally:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
        _end_marked(mark)
        process.wait()


def lines_of(process: subprocess.Popen[bytes], log: Path, begin: int) -> Iterator[str]:
    """Yields the lines that a running process writes, until it has ended.

    It is the process that is watched: workers that outlive it would hold a pipe open for ever.

    Args:
        process: writes to ``log``.
        log: is read from ``begin``, in bytes.
        begin: the size that it had before.
    """
    with log.open(encoding="utf-8", errors="replace") as file:
        file.seek(begin)
        line = ""
        while True:
            has_ended = process.poll() is not None
            while part := file.readline():
                line += part
                if line.endswith("\n"):
                    yield line
                    line = ""
            if has_ended:
                break
            time.sleep(0.1)
    if line:
        yield line


def end_with_parent(parent: int, *, politely: bool = False) -> None:
    """Lets this process end when the one that started it has ended. Only Linux can do this; elsewhere nothing happens.

    Args:
        parent: the ID of the process that started it, which may have ended already.
        politely: by an interruption, so that it ends its own workers, instead of a kill.
    """
    if politely:  # a shell lets what it starts in the background ignore interruptions
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if sys.platform == "linux":
        number = signal.SIGINT if politely else signal.SIGKILL
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent and _has_ended(parent):  # too late for the signal
            os.kill(os.getpid(), number)


def _has_ended(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@cache
def let_forks_end_with_parent() -> None:
    """Lets every process that this one forks from now on end with it."""
    if not hasattr(os, "register_at_fork"):
        return
    forking = [os.getpid()]

    def before() -> None:
        forking[0] = os.getpid()

    os.register_at_fork(before=before, after_in_child=lambda: end_with_parent(forking[0]))


def _end_marked(mark: str) -> None:
    """Ends every process that carries a mark: asks it first."""
    import psutil

    left = [process for process in psutil.process_iter() if mark in _marks(process)]
    for process in left:
        with suppress(psutil.Error):
            process.terminate()
    for process in psutil.wait_procs(left, _GRACE_S)[1]:
        with suppress(psutil.Error):
            process.kill()


def _marks(process: object) -> list[str]:
    """Returns the marks of a process; none where another user's may not be read."""
    import psutil

    assert isinstance(process, psutil.Process)
    try:
        return str(process.environ().get(_MARKS, "")).split(os.pathsep)
    except (psutil.Error, OSError):
        return []
