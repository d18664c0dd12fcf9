"""Who runs the command may go away, or press Ctrl-C as often as they like: pictures are kept."""

from __future__ import annotations

import fcntl
import importlib
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from impasto import read_record, sample
from impasto.apps.cli import console
from impasto.apps.cli.main import main
from impasto.errors import LOGGER
from impasto.pages import compare, layout

PHOTO, OTHER = str(sample("owl")), str(sample("kingfisher"))
STYLE = ["--style", str(sample("great_wave"))]
QUICK = ["--size", "32", "--steps", "2"]
COMMAND = [sys.executable, "-m", "impasto"]


def in_a_shell(line: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """A line for bash in which "$@" is `impasto ARGUMENTS`."""
    shell = ["bash", "-o", "pipefail", "-c", line, "impasto", *COMMAND, *arguments]
    return subprocess.run(shell, capture_output=True, check=False)


def is_whole(name: str) -> bool:
    with Image.open(name) as image:
        image.load()
    return not [path for path in Path(name).parent.iterdir() if "part" in path.name]


@pytest.mark.parametrize(
    "line",
    [
        '"$@" 2>&1 | head -2',
        '"$@" 2>&-',
        '"$@" --json >&-',
        '"$@" <&- >&- 2>&-',
        '"$@" > /dev/full',
    ],
)
def test_pipes_and_streams_that_are_gone(line: str) -> None:
    done = in_a_shell(line, "stylize", PHOTO, OTHER, *STYLE, *QUICK, "-o", "out/")
    assert done.returncode == 0
    assert b"Traceback" not in done.stdout + done.stderr
    assert is_whole("out/owl-great_wave.png")
    assert is_whole("out/kingfisher-great_wave.png")
    assert (b"2 steps" in done.stdout) == (line == '"$@" 2>&-')


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    assert main(["stylize", PHOTO, *STYLE, *QUICK, "-o", "a.png", "--quiet"]) == 0
    for arguments in (["show", "a.png"], ["samples"], ["stylize", "--help"]):
        done = in_a_shell('"$@" | head -c 1', *arguments)
        assert (done.returncode, done.stderr, len(done.stdout)) == (0, b"", 1)
    done = in_a_shell('"$@" > /dev/full', "show", "a.png")  # what it prints is all that it does
    assert done.returncode == 2
    assert b"impasto: standard output cannot be written (No space left on device)" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_bad_input_without_anyone_to_tell() -> None:
    assert in_a_shell('"$@" 2>&-', "stylize", "missing.jpg", *STYLE).returncode == 2
    assert in_a_shell('"$@" 2>&-', "stylize", PHOTO, "--unknown").returncode == 2


def test_a_terminal_that_changes_its_size() -> None:
    master, slave = os.openpty()

    def resize(rows: int, columns: int) -> None:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read() -> None:
        try:
            while os.read(master, 65536):
                pass
        except OSError:
            pass

    resize(24, 80)
    threading.Thread(target=read, daemon=True).start()
    command = [*COMMAND, "stylize", PHOTO, *STYLE, "--size", "32", "--steps", "40", "-o", "a.png"]
    process = subprocess.Popen(command, stderr=slave, stdout=subprocess.DEVNULL)
    sizes = [(24, 5), (0, 0), (1, 1), (24, 300), (24, 0)]
    while process.poll() is None:
        resize(*sizes[0])
        sizes = sizes[1:] + sizes[:1]
        time.sleep(0.01)
    os.close(slave)
    os.close(master)
    assert process.returncode == 0
    assert is_whole("a.png")


def test_a_terminal_that_is_closed() -> None:
    command = [*COMMAND, "stylize", PHOTO, *STYLE, "--size", "64", "--steps", "9999", "-o", "a.png"]
    pid, terminal = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever these tests were started with
        os.execv(sys.executable, command)
    seen = b""
    while b"loss" not in seen:
        seen += os.read(terminal, 4096)
    os.close(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    assert read_record("a.png")["stopped"] == "interrupted"


def interrupted(signals: list[signal.Signals], apart: float) -> subprocess.CompletedProcess[str]:
    """Send signals, so many seconds apart, to a run that has made some steps."""
    # Large enough that its checkpoint takes a while.
    settings = ["--size", "400", "--levels", "1", "--steps", "9999", "-o", "a.png"]
    process = subprocess.Popen(
        [*COMMAND, "stylize", PHOTO, *STYLE, *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(0.1)
    while not Path("a.png.checkpoint").exists():
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)
    for number in signals:
        process.send_signal(number)
        time.sleep(apart)
    out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess([], process.returncode, out, err)


@pytest.mark.parametrize(
    ("signals", "apart"),
    [
        ([signal.SIGINT] * 2, 0.1),
        ([signal.SIGINT] * 9, 0.02),
        ([signal.SIGTERM], 0.0),
        ([signal.SIGHUP, signal.SIGTERM, signal.SIGINT], 0.05),
    ],
)
def test_however_often_and_by_whatever_signal(signals: list[signal.Signals], apart: float) -> None:
    done = interrupted(signals, apart)
    assert done.returncode == 130, done.stderr
    assert "the picture is saved as it is; to go on: impasto resume a.png.checkpoint" in done.stderr
    assert "Traceback" not in done.stderr
    assert is_whole("a.png")
    assert sorted(path.name for path in Path().iterdir()) == ["a.png", "a.png.checkpoint"]


def test_in_a_thread_that_is_not_the_main_one() -> None:
    codes: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    arguments = ["stylize", PHOTO, *STYLE, *QUICK, "-o", "a.png", "--film", "a.gif", "--quiet"]
    thread = threading.Thread(target=lambda: codes.append(main(arguments)))
    thread.start()
    thread.join()
    assert codes == [0]
    assert is_whole("a.png")
    assert is_whole("a.gif")
    assert main([*arguments, "--force"]) == 0
    assert signal.getsignal(signal.SIGINT) is before


def test_what_is_held_is_finished_first() -> None:
    with pytest.raises(KeyboardInterrupt), console.Interruptions() as interruptions:  # noqa: PT012
        with interruptions.held():
            signal.raise_signal(signal.SIGINT)
            finished = True
        assert interruptions.asked
        interruptions.check()
    assert finished
    with pytest.raises(KeyboardInterrupt), console.Interruptions() as interruptions:  # noqa: PT012
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)  # again: nothing
        interruptions.check()  # what Python may have lost is raised again


def test_two_at_once_in_threads(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "b.png"):
        assert main(["stylize", PHOTO, *STYLE, *QUICK, "-o", name, "--quiet"]) == 0
    capsys.readouterr()
    codes: list[int] = []
    threads = [
        threading.Thread(
            target=lambda name=name: codes.append(
                main(["stylize", PHOTO, *STYLE, *QUICK, "-o", name])
            )
        )
        for name in ("a.png", "b.png")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0, 0]
    told = capsys.readouterr().err
    for name in ("a", "b"):  # each is told of once, by its own
        assert told.count(f"note: {name}.png exists already; {name}-2.png was written") == 1
        assert is_whole(f"{name}-2.png")


def test_ctrl_c_while_the_page_is_drawn_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = layout.contact_sheet

    def pressed(*given: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return draw(*given, **options)

    monkeypatch.setattr(compare, "contact_sheet", pressed)
    command = ["compare", PHOTO, *STYLE, "--vary", "seed=1,2", *QUICK, "-o", "a.png", "--quiet"]
    assert main(command) == 0
    assert is_whole("a.png")
    assert [run["stopped"] for run in read_record("a.png")["runs"]] == ["budget"] * 2


def test_nothing_is_left_behind_in_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module("scipy.special")  # adds a filter of its own when it is first loaded
    before = signal.getsignal(signal.SIGINT), warnings.filters[:], LOGGER.handlers[:]
    assert main(["stylize", PHOTO, *STYLE, *QUICK, "-o", "a.png", "--quiet"]) == 0
    assert main(["stylize", PHOTO, *STYLE, *QUICK, "-o", "a.png", "--quiet"]) == 0
    assert main(["stylize", "missing.jpg", *STYLE]) == 2
    assert "note" not in capsys.readouterr().err
    assert before == (signal.getsignal(signal.SIGINT), warnings.filters[:], LOGGER.handlers[:])
