"""Locks: one process at a time writes a folder, and another one is told who it is."""

from __future__ import annotations

import atexit
import json
import os
import shlex
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from nnunet_cil.errors import CILError
from nnunet_cil.files import read_json, temporary_file
from nnunet_cil.owners import Owner, current_owner, current_user, read_token
from nnunet_cil.slurm_queue import job_is_over

_LOOK_EVERY_S = 2.0
_MOST_NEW_FOLDERS = 10
_ASK_EVERY_S = 30.0
"""How often Slurm is asked, which serves many users."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock, as its file says.

    Attributes:
        owner: the process.
        host: the machine's name.
        since: when it was taken, as text.
        command: of the process.
        job: the ID of the Slurm job that the process belongs to; empty for none.
        cluster: of that job; empty where Slurm did not say.
        new_folders: how many of the file's folders, from the innermost on, were made for it.
        is_own: this user has taken it.
    """

    owner: Owner
    host: str
    since: str
    command: str
    job: str
    cluster: str
    is_own: bool
    new_folders: int = 0

    @classmethod
    def this_process(cls) -> Holder:
        """Returns this process as a holder."""
        words = [Path(sys.argv[0]).name, *sys.argv[1:]]
        now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        return cls(
            owner=current_owner(),
            host=socket.gethostname(),
            since=now,
            command=shlex.join(words),
            job=os.environ.get("SLURM_JOB_ID", ""),
            cluster=os.environ.get("SLURM_CLUSTER_NAME", ""),
            is_own=True,
        )

    def __str__(self) -> str:
        """Returns the holder as a part of a sentence."""
        return f"process {self.owner.pid} on {self.host} since {self.since} ({self.command})"

    @property
    def state(self) -> Literal["running", "gone", "unknown"]:
        """Tells whether its process is still there. On another node, Slurm is asked about its job, from within a job.

        A job that is started again may be on another machine; it runs once at a time.
        """
        state = self.owner.state
        if state != "unknown" or not self.job:
            return state
        if self.job == os.environ.get("SLURM_JOB_ID"):
            return "gone" if self.owner.host != current_owner().host else "unknown"
        # of another user, or another cluster, Slurm may say nothing
        if not self.is_own or not self.cluster or self.cluster != os.environ.get("SLURM_CLUSTER_NAME"):
            return "unknown"
        is_over = job_is_over(self.job)
        if is_over is None:
            return "unknown"
        return "gone" if is_over else "running"

    @property
    def has_ended(self) -> bool:
        """Tells whether its process is known to be gone."""
        return self.state == "gone"


class Lock:
    """A lock on what one process at a time may write: a file that names the process.

    A file instead of a lock of the operating system, since it says who holds it, since workers do not inherit it, and since it is
    seen on a shared disk. A lock whose process is gone is taken over.
    """

    def __init__(self, file: Path, what: str) -> None:
        """Takes nothing yet.

        Args:
            file: names the holder; made and removed with its folder in place.
            what: is written, to begin a sentence.
        """
        self.file = file
        self.what = what
        self._made: tuple[Path, ...] = ()

    def holder(self) -> Holder | None:
        """Returns who holds the lock; None for nobody, this process, or one that is gone."""
        holder = self._read()
        if holder is None or holder.owner == current_owner() or holder.has_ended:
            return None
        return holder

    def left_by(self) -> Holder | None:
        """Returns the process that has ended without letting the lock go; None where there is no such."""
        holder = self._read()
        return holder if holder is not None and holder.has_ended else None

    def acquire(self) -> None:
        """Takes the lock; does nothing where this process holds it already. It is let go when the process ends.

        Raises:
            CILError: another process holds it; with the remedy.
        """
        self._made = tuple(p for p in self.file.parents if not p.exists())
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time():
            if (holder := self.holder()) is not None:
                raise CILError(self.refusal(holder))
            known = self._read()
            if known is not None and known.owner != current_owner():
                self._made = self._folders_of(known)
                self.file.unlink(missing_ok=True)
            elif known is not None:
                self._made = self._folders_of(known)
                return
            try:
                self._create()
            except BaseException:
                self._remove_made()
                raise
        atexit.register(self.release)

    def release(self) -> None:
        """Lets the lock go, if this process holds it. A folder that was made for it goes, too, if nothing else is in it."""
        holder = self._read()
        if holder is not None and holder.owner == current_owner():
            self.file.unlink(missing_ok=True)
            self._remove_made()

    def _remove_made(self) -> None:
        with suppress(OSError):
            for folder in self._made:
                folder.rmdir()

    def forget_ended(self) -> None:
        """Removes the file of a process that has ended without letting the lock go, as one that is killed does."""
        if self.left_by() is not None:
            with _one_at_a_time():
                if (holder := self.left_by()) is not None:  # nobody has taken it over meanwhile
                    self.file.unlink(missing_ok=True)
                    self._made = self._folders_of(holder)
                    self._remove_made()
                    self._made = ()

    def _folders_of(self, holder: Holder) -> tuple[Path, ...]:
        return tuple(self.file.parents)[: holder.new_folders]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Holds the lock for as long as the context lasts.

        Raises:
            CILError: another process holds it.
        """
        self.acquire()
        try:
            yield
        finally:
            self.release()

    @contextmanager
    def held_in_turn(self, say: Callable[[str], None]) -> Iterator[None]:
        """Holds the lock as ``held``, but waits for its turn; arguments and errors as for ``wait``."""
        while True:
            self.wait(say)
            try:
                self.acquire()
            except CILError:  # another one that waited was faster
                if self.holder() is None:
                    raise
            else:
                break
        try:
            yield
        finally:
            self.release()

    def wait(self, say: Callable[[str], None]) -> None:
        """Waits until nobody holds the lock.

        Args:
            say: is called once, with a sentence, where there is somebody to wait for.

        Raises:
            CILError: the holder cannot be watched from here.
        """
        watched: Holder | None = None
        while (holder := self.holder()) is not None:
            if holder != watched:
                if holder.state == "unknown":
                    raise CILError(self.refusal(holder))
                if watched is None:
                    say(f"{self.what} is in use by {holder}: waiting for its end")
                watched = holder  # from now on, Slurm may be silent for a while
            time.sleep(_ASK_EVERY_S if holder.owner.state == "unknown" else _LOOK_EVERY_S)

    def refusal(self, holder: Holder) -> str:
        """Returns a sentence that says who holds the lock, and what to do."""
        if holder.state == "running":
            return f"{self.what} is in use by {holder}. Wait for its end, or end it."
        return (
            f"{self.what} is in use by {holder}, which cannot be watched from here. Wait for its end; if it has ended "
            f"already, remove {self.file} and run the same again."
        )

    def _read(self) -> Holder | None:
        """Returns who has taken the lock; None where nobody has, or a file that no process has finished."""
        try:
            content = read_json(self.file, "")
            is_own = self.file.stat().st_uid == current_user()
            owner = read_token(str(content.get("process")))
        except (CILError, FileNotFoundError):
            return None
        if owner is None:
            return None
        texts = {key: str(content.get(key, "")) for key in ("host", "since", "command", "job", "cluster")}
        made = content.get("new_folders")
        number = made if type(made) is int and 0 <= made < _MOST_NEW_FOLDERS else 0
        return Holder(owner=owner, is_own=is_own, new_folders=number, **texts)

    def _create(self) -> None:
        """Writes the file, unless another process, of another machine, has written it meanwhile.

        Raises:
            CILError: it has.
        """
        own = Holder.this_process()
        content = {
            "process": own.owner.token,
            "host": own.host,
            "since": own.since,
            "command": own.command,
            "job": own.job,
            "cluster": own.cluster,
            "new_folders": len(self._made),
        }
        with temporary_file(self.file) as written:
            written.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
            self._put_in_place(written)

    def _put_in_place(self, written: Path) -> None:
        """Gives a file the lock's name, unless there is one of that name.

        Raises:
            CILError: there is.
        """
        try:
            os.link(written, self.file)  # fails where there is a file
        except FileExistsError:
            if (holder := self.holder()) is not None:
                raise CILError(self.refusal(holder)) from None
            raise CILError(f"{self.file} is damaged, so that nobody knows who uses {self.what}. Remove it.") from None
        except OSError:  # a disk without links
            if self.file.exists():
                raise CILError(f"{self.what} is in use. Run the same again later, or remove {self.file}.") from None
            written.replace(self.file)


def fold_lock(folder: Path) -> Lock:
    """Returns the lock of a fold's folder, which its training and its validation take."""
    return Lock(folder / ".in_use.json", str(folder))


def refuse_if_held(lock: Lock) -> None:
    """Refuses what another process is writing; removes the lock of one that was killed.

    Raises:
        CILError: with the holder.
    """
    lock.forget_ended()
    if (holder := lock.holder()) is not None:
        raise CILError(lock.refusal(holder))


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Lets one process of this machine at a time look at a lock and take it over."""
    from filelock import FileLock

    with FileLock(Path(tempfile.gettempdir()) / f"nnunet_cil_{current_user()}.lock"):
        yield
