"""The command line of a tool, called in this process: a new one takes a second or two to import what it needs."""

import contextlib
import importlib
import io
import sys
from types import SimpleNamespace
from unittest import mock


def run(tool: str, *arguments) -> SimpleNamespace:
    """What `python tools/<tool>.py …` gives: returncode, stdout, stderr."""
    stdout, stderr, code = io.StringIO(), io.StringIO(), None
    argv = mock.patch.object(sys, "argv", [tool, *map(str, arguments)])
    with argv, contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            importlib.import_module(f"tools.{tool}").main()
        except SystemExit as end:
            code = end.code
    if isinstance(code, str):
        stderr.write(f"{code}\n")
        code = 1
    return SimpleNamespace(returncode=code or 0, stdout=stdout.getvalue(), stderr=stderr.getvalue())
