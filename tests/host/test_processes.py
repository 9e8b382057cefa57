"""A command that is killed alone takes its workers with it, and one that is started ends with the process that started it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from toy_jobs import wait_for

from nnunet_cil.host import commands
from nnunet_cil.host.commands import CommandError, log_end

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX has them")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process end with its parent")

STAND_IN = """
import os, pathlib, signal, subprocess, sys, time
here = pathlib.Path(sys.argv[1])

def begin():
    print("begins")
    time.sleep(0.1)

def leave_a_worker(signal_number, session):
    code = "import time; print('works', flush=True); time.sleep(300)"
    worker = subprocess.Popen([sys.executable, "-c", code], start_new_session=session)
    (here / "worker").write_text(str(worker.pid))
    os.kill(os.getpid(), signal_number)

def killed(): leave_a_worker(signal.SIGKILL, session=False)
def killed_in_another_session(): leave_a_worker(signal.SIGKILL, session=True)
def terminated(): leave_a_worker(signal.SIGTERM, session=False)
def wait():
    (here / "started").write_text(str(os.getpid()))
    try:
        time.sleep(300)
    except KeyboardInterrupt:
        (here / "interrupted").touch()
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Calls a function of ``STAND_IN`` as if it were one of nnU-Net's commands."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}

    def call(function, watch=lambda _line: None):
        monkeypatch.setitem(commands._ENTRY_POINTS, function, f"stand_in:{function}")
        commands.call(function, [str(tmp_path)], environment, tmp_path / "log.txt", watch)

    return call


def is_running(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_for_the_end_of(pid):
    deadline = time.time() + 60
    while is_running(pid):
        assert time.time() < deadline, f"process {pid} goes on"
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("function", "how"),
    [
        (
            "killed",
            "was killed by the system, most likely since memory ran out. Give it more memory, or fewer processes",
        ),
        ("killed_in_another_session", "was killed by the system"),
        ("terminated", r"was ended by the signal SIGTERM. Run the same again"),
    ],
)
def test_a_command_whose_main_process_alone_is_killed_does_not_wait_for_its_workers(stand_in, tmp_path, function, how):
    begin = time.monotonic()
    with pytest.raises(CommandError, match=how):
        stand_in(function)
    assert time.monotonic() - begin < 60  # its worker would go on for 300 s
    assert not is_running(int((tmp_path / "worker").read_text()))
    assert re.search(how, log_end(tmp_path / "log.txt").splitlines()[-1])  # a later run shows the log alone


def test_every_line_is_handed_on_also_the_last_without_an_end(stand_in):
    seen = []
    stand_in("begin", seen.append)
    assert seen == ["begins\n"]


@on_linux
def test_a_command_ends_with_the_process_that_called_it(stand_in, tmp_path):
    """Also in the background of a shell, which lets it ignore interruptions."""
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from nnunet_cil.host import commands\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "commands._ENTRY_POINTS['wait'] = 'stand_in:wait'\n"
        "commands.call('wait', [sys.argv[1]], os.environ, Path(sys.argv[1]) / 'log.txt')\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    caller = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": path})
    wait_for(tmp_path / "started")
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    wait_for(tmp_path / "interrupted")
    wait_for_the_end_of(int((tmp_path / "started").read_text()))


@on_linux
def test_forked_workers_end_with_a_process_that_is_killed(tmp_path):
    code = (
        "import os, pathlib, sys, time\n"
        "from nnunet_cil.host.processes import let_forks_end_with_parent\n"
        "let_forks_end_with_parent()\n"
        "if pid := os.fork():\n"
        "    (pathlib.Path(sys.argv[1]) / 'worker').write_text(str(pid))\n"
        "time.sleep(300)\n"
    )
    main = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    wait_for(tmp_path / "worker")
    time.sleep(0.2)  # the worker may still be at its first line
    worker = int(Path(tmp_path / "worker").read_text())
    assert is_running(worker)
    main.kill()
    main.wait()
    wait_for_the_end_of(worker)


@on_linux
@pytest.mark.parametrize(
    ("parent", "politely", "status"),
    [("own", False, 0), ("alive", False, 0), ("ended", False, -signal.SIGKILL), ("ended", True, -signal.SIGINT)],
)
def test_a_process_whose_parent_has_ended_before_it_asks_for_the_signal_ends_too(parent, politely, status):
    """Under a fork server the process that asked for a worker is not its parent, and alive."""
    with subprocess.Popen(["true"]) as ended:
        pass
    parent = {"own": "os.getppid()", "alive": os.getppid(), "ended": ended.pid}[parent]
    code = f"import os; from nnunet_cil.host.processes import end_with_parent as f; f({parent}, politely={politely})"
    process = subprocess.run([sys.executable, "-c", code], stderr=subprocess.DEVNULL, check=False)
    assert process.returncode == status
