"""The log of the workflows is printed while a command runs, and only then."""

import logging

import pytest

from nnunet_cil.cli import main
from nnunet_cil.cli.progress import printed_progress

logger = logging.getLogger("nnunet_cil.workflows.some")


def test_progress_is_printed_plainly_while_a_command_runs(capsys):
    with printed_progress():
        logger.info("step %d of %d", 1, 3)
        logger.debug("nobody wants to know")
    assert capsys.readouterr().out == "step 1 of 3\n"


def test_without_a_command_nothing_is_printed(capsys):
    with printed_progress():
        pass
    logger.info("step 1")
    assert capsys.readouterr() == ("", "")


def test_a_command_within_a_command_prints_once(capsys):
    with printed_progress():
        with printed_progress():
            logger.info("inner")
        logger.info("outer")
    assert capsys.readouterr().out == "inner\nouter\n"


def test_main_prints_progress_in_every_call_and_leaves_the_logger_as_it_was(monkeypatch, capsys):
    monkeypatch.setattr("nnunet_cil.cli.commands.doctor.execute", lambda _args: logger.info("looking") or 0)
    package = logging.getLogger("nnunet_cil")
    before = package.level, list(package.handlers)
    for _ in range(2):
        assert main(["doctor"]) == 0
        assert capsys.readouterr().out == "looking\n"
    assert (package.level, package.handlers) == before


def test_progress_still_reaches_the_handlers_of_the_user(caplog):
    with printed_progress():
        logger.info("for both")
    assert caplog.messages == ["for both"]


def test_a_closed_pipe_ends_the_command(monkeypatch):
    def broken(*_arguments, **_options):
        raise BrokenPipeError

    monkeypatch.setattr("builtins.print", broken)
    with pytest.raises(BrokenPipeError), printed_progress():
        logger.info("into nowhere")
