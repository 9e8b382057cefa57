"""Processes are known again by their start and their machine, not by their ID alone."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from nnunet_cil.owners import Owner, current_owner, read_token


def ended_process():
    """Returns the description of a process that has ended."""
    code = "from nnunet_cil.owners import current_owner; print(current_owner().token)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    owner = read_token(said.strip())
    assert owner is not None
    return owner


def test_a_process_is_running_until_it_ends():
    assert current_owner().state == "running"
    assert ended_process().state == "gone"


def test_a_token_names_the_same_process():
    assert read_token(current_owner().token) == current_owner()
    assert set(current_owner().token) <= set("0123456789abcdef-")


@pytest.mark.parametrize(
    "change", [lambda t: "", lambda t: "x", lambda t: t + "x", lambda t: t[1:], lambda t: "a" * 99]
)
def test_other_text_is_no_token(change):
    assert read_token(change(current_owner().token)) is None


@pytest.mark.parametrize(
    ("changes", "later", "state"),
    [
        ({}, -1000, "gone"),  # its ID is used again
        ({}, 100, "running"),  # the same, read with the clock's error
        ({"boot": "0" * 8}, 0, "gone"),  # the machine was started again
        ({"boot": "0" * 8, "namespace": "0" * 8}, 0, "gone"),
        ({"host": "0" * 8}, 0, "unknown"),
        ({"host": "0" * 8, "boot": "0" * 8}, 0, "unknown"),
        ({"namespace": "0" * 8}, 0, "unknown"),  # another container
        ({"pid": 2**22 + 1}, 0, "gone"),
    ],
)
def test_an_id_that_is_used_again_another_start_or_another_machine_is_noticed(changes, later, state):
    own = current_owner()
    assert replace(own, **{"start": own.start + later, **changes}).state == state


@pytest.mark.skipif(not hasattr(os, "fork"), reason="without forks")
def test_a_fork_is_another_process():
    known = current_owner()
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.write(writing, current_owner().token.encode())
        os._exit(0)
    os.wait()
    forked = read_token(os.read(reading, 1000).decode())
    assert isinstance(forked, Owner)
    assert forked != known
    assert forked.state == "gone"
