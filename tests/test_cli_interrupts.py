"""An interrupt is one line and the status 130, whatever becomes of it on the way."""

import signal
import subprocess
import sys

import pytest
from support.signals import interruptible as as_in_a_terminal

from zoo.cli.interrupts import handle_interrupts, interruptible


def swallowed() -> None:
    """Be interrupted, as a library that catches everything while it is imported."""
    try:
        signal.raise_signal(signal.SIGINT)
    except BaseException:
        raise AttributeError("half imported") from None


@pytest.fixture
def pythons_handler() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.usefixtures("pythons_handler")
def test_an_interrupt_that_a_library_catches_is_raised_again() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():
        swallowed()
    with pytest.raises(AttributeError), interruptible():
        raise AttributeError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("pythons_handler")
def test_a_command_within_another_takes_the_interrupt() -> None:
    heard = []
    with interruptible(), handle_interrupts(lambda: heard.append(1)):
        signal.raise_signal(signal.SIGINT)
    assert heard == [1]


@pytest.mark.usefixtures("pythons_handler")
def test_the_handler_of_a_program_stays() -> None:
    heard = []
    signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with interruptible():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert heard == [1]


def test_the_command_says_so_and_nothing_else() -> None:
    code = (
        "import signal, sys, zoo.cli\n"
        "def load(*_, **__):\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    except BaseException:\n"
        "        raise ImportError('half imported')\n"
        "zoo.cli.zoo.load = load\n"
        "sys.exit(zoo.cli.main(['export', 'danet20-t4']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=as_in_a_terminal
    )
    assert (done.returncode, done.stderr) == (130, "zoo: interrupted\n")
