"""The command line: finds the command, runs it, and turns the outcome into an exit code.

Exit codes: 0 all went well; 1 some of several photos failed; 2 bad input; 130 interrupted.
Lines about results go to standard output, everything else to standard error.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import shutil
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from inspect import BoundArguments
from typing import Any, get_args

from cyclopts import Argument, ArgumentCollection, CycloptsError, exceptions
from cyclopts.utils import UNSET

from impasto.apps.cli import batch, console, doors, from_noise, one_pass  # noqa: F401 # commands join the app
from impasto.apps.cli.commands import app
from impasto.apps.cli.console import Interruptions, Notices, print_out, say
from impasto.apps.cli.making import INTERRUPTED
from impasto.apps.cli.texts import COMMAS, YES_NO, is_no_file, is_value
from impasto.errors import ImpastoError
from impasto.pictures.files import STANDARD
from impasto.settings import KeptColors, choose

BAD_INPUT = 2

_one_at_a_time = threading.Lock()  # while it parses, cyclopts keeps its state in the app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    console.prepare()
    if arguments is None:  # run as a program, not from Python
        warnings.simplefilter("ignore")
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _one_at_a_time:
            run, is_quiet = _read(words)
        with Interruptions(lasting=arguments is None), Notices(quiet=is_quiet):
            return run() or 0
    except ImpastoError as error:
        say(f"impasto: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        say("impasto: interrupted")
        return INTERRUPTED
    finally:
        console.finish()


def _read(words: list[str]) -> tuple[Callable[[], int | None], bool]:
    """The command to run, with its arguments, and whether to run it quietly.

    Raises:
        ImpastoError: there is no such command or option, or a value is out of its range.
    """
    name = words[0] if words and words[0] in app and words[0].isalpha() else ""
    try:
        if name:
            words = [name, *spelled_out(words[1:], app[name].assemble_argument_collection())]
        command, given, _ = app.parse_args(words)
        if "console" in given.arguments:
            return partial(print_out, _page(command, given)), False
        if kind := getattr(command, "kind", None):
            choices = {**given.arguments.get("choices", {})}
            choose(kind, None, choices, choices.pop("preset", None))
    except (CycloptsError, ImpastoError) as error:
        told = " ".join(["impasto", *filter(None, [name]), "--help"])
        raise ImpastoError(f"{_sentence(error)}; see {told}") from None
    is_quiet = getattr(given.arguments.get("out"), "quiet", False)
    return partial(command, *given.args, **given.kwargs), is_quiet


def spelled_out(words: Sequence[str], known: ArgumentCollection) -> list[str]:
    """Rewrite the words: options first, each with `=` before its value, then `--` and all photos.

    Thus file names may begin with a dash, `-` is a name like any other, and `--keep-colors` alone
    means luminance and does not take the next photo for its value.
    """
    options: list[str] = []
    photos: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            photos += rest
            break
        if word == STANDARD or not word.startswith("-"):
            photos.append(word)
        elif word == "--keep-colors" and not {*rest[:1]} & {*get_args(KeptColors), *YES_NO, "none"}:
            options.append(f"{word}={get_args(KeptColors)[0]}")
        elif rest and (argument := _valued(word, known)) and is_value(rest[0]):
            options.append(f"{word}={rest.pop(0)}")
            if argument.parameter.metavar in COMMAS and rest and is_no_file(rest[0]):
                sign = ":" if options[-1].endswith("up-to") else ","
                form = options[-1].replace("=", " ", 1) + sign + rest[0]
                told = f"{word} takes several values without spaces, as in {form}"
                raise ImpastoError(f"there is no file {rest[0]}; {told}")
        else:
            options.append(word)
    return [*options, "--", *photos] if photos else options


def _valued(word: str, known: ArgumentCollection) -> Argument | None:
    """The option that a word names, if that option takes a value."""
    with contextlib.suppress(ValueError):
        argument, _, implied = known.match(word)
        return argument if implied is UNSET else None
    return None


def _sentence(error: Exception) -> str:
    if isinstance(error.__cause__, ImpastoError):
        return str(error.__cause__)
    match error:
        case exceptions.UnknownOptionError():
            word = (error.token.keyword or error.token.value).partition("=")[0]
            names = [name for argument in error.argument_collection for name in argument.names]
            return f"there is no option {word}{_near(word, names)}"
        case exceptions.UnknownCommandError(unused_tokens=[word, *_]):
            return f"there is no command {word}{_near(word, app)}"
        case exceptions.MissingArgumentError(keyword=str(word)):
            return f"{word} needs a value"
        case exceptions.MissingArgumentError(argument=argument) if argument:
            return f"{argument.name} is missing"
        case exceptions.UnusedCliTokensError(unused_tokens=[word, *_]):
            return f"{word} is one name too many"
    return str(error).rstrip(".")


def _near(word: str, names: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, names, 1)
    return f"; did you mean {found[0]}?" if found else ""


def _page(command: Callable[..., Any], given: BoundArguments) -> str:
    """The text of the help or the version, as wide as the terminal, 100 columns at most."""
    from rich.console import Console

    page, width = io.StringIO(), min(shutil.get_terminal_size().columns, 100)
    given.arguments["console"] = Console(file=page, width=width)
    command(*given.args, **given.kwargs)
    lines = "\n".join(map(str.rstrip, page.getvalue().splitlines()))
    return re.sub("\n{3,}", "\n\n", lines).strip()
