"""One process at a time writes a folder; who is in the way is told, and who is gone is not in the way."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
from test_owners import ended_process
from toy_jobs import wait_for

from nnunet_cil.errors import CILError
from nnunet_cil.locks import Lock, refuse_if_held
from nnunet_cil.owners import current_owner

HOLD = """
import sys, time
from pathlib import Path
from nnunet_cil.locks import Lock
Lock(Path(sys.argv[1]) / "lock.json", "The folder").acquire()
(Path(sys.argv[1]) / "held").touch()
while not (Path(sys.argv[1]) / "end").exists():
    time.sleep(0.05)
"""


@pytest.fixture
def lock(tmp_path):
    return Lock(tmp_path / "lock.json", "The folder")


@pytest.fixture
def other(tmp_path):
    """Another process, which holds the lock; it ends by itself once the file ``end`` is there."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)])
    wait_for(tmp_path / "held")
    yield process
    process.kill()
    process.wait()


def write_holder(lock, owner, **more):
    content = {
        "process": owner.token,
        "host": "node7",
        "since": "yesterday",
        "command": "nnUNetv2_train 1 2d 0",
        "job": "",
    }
    lock.file.write_text(json.dumps(content | more))


def test_a_lock_that_is_held_names_its_holder(lock, other):
    with pytest.raises(
        CILError,
        match=rf"^The folder is in use by process {other.pid} on \S+ since .* UTC \(-c .*\)\. Wait for its end, or end it\.$",
    ):
        lock.acquire()
    with pytest.raises(CILError, match="is in use by process"):
        refuse_if_held(lock)


@pytest.mark.parametrize("end", ["kill", "terminate", "of itself"])
def test_a_lock_is_free_once_its_holder_has_ended(lock, other, end, tmp_path):
    if end == "of itself":
        (tmp_path / "end").touch()
    else:
        getattr(other, end)()
    other.wait()
    assert lock.file.exists() == (end != "of itself")
    refuse_if_held(lock)
    with lock.held():
        assert json.loads(lock.file.read_text())["process"] == current_owner().token
    assert not lock.file.exists()


def test_a_process_may_take_its_own_lock_again(lock):
    with lock.held():
        lock.acquire()
        assert lock.holder() is None
    lock.release()
    assert os.listdir(lock.file.parent) == []


def test_a_lock_of_another_machine_is_not_taken_over_and_it_is_said_how(lock, monkeypatch):
    write_holder(lock, replace(current_owner(), host="0" * 8), job="7")
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    who = rf"process {os.getpid()} on node7 since yesterday .nnUNetv2_train 1 2d 0."
    message = rf"{who}, which cannot be watched .* remove {lock.file} and run"
    for refused in (lock.acquire, lambda: lock.wait(print), lambda: refuse_if_held(lock)):
        with pytest.raises(CILError, match=message):
            refused()
    lock.file.unlink()  # what the message says works
    lock.acquire()


def test_a_slurm_job_that_is_started_again_elsewhere_takes_its_lock_over(lock, monkeypatch):
    write_holder(lock, replace(current_owner(), host="0" * 8), job="7")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    lock.acquire()
    assert json.loads(lock.file.read_text())["process"] == current_owner().token


@pytest.fixture
def on_another_node(lock, monkeypatch):
    """A lock of job 7 on another node; this process is in job 8 of the same cluster."""
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    monkeypatch.setenv("SLURM_CLUSTER_NAME", "one")
    write_holder(lock, replace(current_owner(), host="0" * 8), job="7", cluster="one")
    return lock


def slurm_says(monkeypatch, *answers):
    left = list(answers)
    monkeypatch.setattr("nnunet_cil.locks.job_is_over", lambda job: left.pop(0) if len(left) > 1 else left[0])


def test_the_lock_of_a_job_that_is_over_is_taken_over_on_another_node(on_another_node, monkeypatch):
    slurm_says(monkeypatch, True)
    on_another_node.acquire()
    assert json.loads(on_another_node.file.read_text())["job"] == "8"


def test_a_job_on_another_node_is_waited_for_also_while_slurm_is_silent(on_another_node, monkeypatch):
    monkeypatch.setattr("nnunet_cil.locks._ASK_EVERY_S", 0.01)
    slurm_says(monkeypatch, False)
    with pytest.raises(CILError, match=r"on node7 since .* Wait for its end, or end it\.$"):
        on_another_node.acquire()
    slurm_says(monkeypatch, False, False, None, None, True)
    said = []
    on_another_node.wait(said.append)
    assert len(said) == 1


@pytest.mark.parametrize("what", ["silent", "another cluster", "another user", "outside of Slurm"])
def test_where_slurm_does_not_know_a_job_its_lock_is_not_taken_over(on_another_node, monkeypatch, what):
    slurm_says(monkeypatch, None if what == "silent" else True)
    if what == "another cluster":
        monkeypatch.setenv("SLURM_CLUSTER_NAME", "two")
    elif what == "another user":
        monkeypatch.setattr("nnunet_cil.locks.current_user", lambda: os.getuid() + 1)
    elif what == "outside of Slurm":
        monkeypatch.delenv("SLURM_CLUSTER_NAME")
    for refused in (on_another_node.acquire, lambda: on_another_node.wait(print)):
        with pytest.raises(CILError, match="which cannot be watched from here"):
            refused()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"process": "x"}', '{"process": null}'])
def test_a_damaged_lock_is_named(lock, content):
    lock.file.write_text(content)
    with pytest.raises(CILError, match=rf"{lock.file} is damaged, .* Remove it\."):
        lock.acquire()
    assert lock.file.read_text() == content


def test_waiting_is_said_once_and_ends_with_the_holder(lock, other, tmp_path):
    said = []
    threading.Timer(0.5, (tmp_path / "end").touch).start()
    lock.wait(said.append)
    assert len(said) == 1
    assert said[0].startswith(f"The folder is in use by process {other.pid} on ")
    lock.wait(said.append)
    assert len(said) == 1


def test_a_lock_is_held_in_turn_once_its_holder_has_ended(lock, other, tmp_path):
    said = []
    threading.Timer(0.5, (tmp_path / "end").touch).start()
    with lock.held_in_turn(said.append):
        assert other.wait(10) == 0
        assert json.loads(lock.file.read_text())["process"] == current_owner().token
    assert not lock.file.exists()
    assert len(said) == 1


def test_who_waits_goes_on_waiting_where_another_one_is_faster(lock, monkeypatch, tmp_path):
    takes = [CILError("The folder is in use"), None]

    def acquire():
        if (error := takes.pop(0)) is not None:
            raise error

    held = iter([None, "another one", None])
    monkeypatch.setattr(lock, "acquire", acquire)
    monkeypatch.setattr(lock, "holder", lambda: next(held))
    with lock.held_in_turn(print):
        assert not takes


TAKE = """
import sys, time
from pathlib import Path
from nnunet_cil.errors import CILError
from nnunet_cil.locks import Lock
here = Path(sys.argv[1])
lock = Lock(here / "lock.json", "The folder")
print("ready", flush=True)
sys.stdin.readline()
try:
    lock.acquire()
    print("won", flush=True)
except CILError as error:
    assert "is in use by process" in str(error)
    print("lost", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("stale", [False, True])
def test_one_of_many_that_take_a_lock_at_once_wins(lock, tmp_path, stale):
    if stale:
        write_holder(lock, ended_process())
    command = [sys.executable, "-c", TAKE, str(tmp_path)]
    takers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    for taker in takers:
        assert taker.stdout.readline() == "ready\n"
    for taker in takers:
        taker.stdin.write("\n")
        taker.stdin.flush()
    said = [taker.stdout.readline().strip() for taker in takers]
    for taker in takers:
        taker.communicate("\n")
    assert sorted(said) == ["lost"] * 5 + ["won"]
    assert os.listdir(tmp_path) == []


def test_the_lock_of_a_killed_process_is_removed_by_whoever_looks_and_no_other_one(lock):
    gone = ended_process()
    for owner, stays in (gone, False), (current_owner(), True), (replace(gone, host="0" * 8), True):
        write_holder(lock, owner)
        lock.forget_ended()
        assert lock.file.exists() == stays
    write_holder(lock, gone)
    refuse_if_held(lock)
    assert not lock.file.exists()


@pytest.mark.parametrize("how", ["look", "take over"])
def test_folders_that_were_made_for_the_lock_of_a_killed_process_go_with_it_unless_something_is_in_them(tmp_path, how):
    for kept in (0, 1):
        lock = Lock(tmp_path / f"data_{kept}/cil_logs/lock.json", "The folder")
        lock.file.parent.mkdir(parents=True)
        write_holder(lock, ended_process(), new_folders=2)
        if kept:
            (tmp_path / "data_1/other").touch()
        if how == "look":
            lock.forget_ended()
        else:
            lock.acquire()
            lock.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data_1"]
    assert [path.name for path in (tmp_path / "data_1").iterdir()] == ["other"]


@pytest.mark.parametrize("number", [-1, 99, "2", True, None])
def test_a_number_of_folders_that_no_lock_can_have_made_is_not_believed(tmp_path, number):
    lock = Lock(tmp_path / "folder/lock.json", "The folder")
    lock.file.parent.mkdir()
    write_holder(lock, ended_process(), new_folders=number)
    lock.forget_ended()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_lock_says_how_many_folders_were_made_for_it(tmp_path):
    lock = Lock(tmp_path / "data/cil_logs/lock.json", "The folder")
    with lock.held():
        assert json.loads(lock.file.read_text())["new_folders"] == 2
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_is_killed_while_it_takes_a_lock_leaves_nothing_in_the_way(lock, tmp_path):
    killed = f"import os; os.link = lambda *_: os._exit(9)\n{HOLD}"
    assert subprocess.run([sys.executable, "-c", killed, str(tmp_path)], check=False).returncode == 9
    assert len(list(tmp_path.iterdir())) == 1
    with lock.held():
        assert [file.name for file in tmp_path.iterdir()] == ["lock.json"]
    assert list(tmp_path.iterdir()) == []
