"""Whole commands typed in process: they end well, in their own error, or let something escape."""

from __future__ import annotations

from typing import Any

from typer.testing import CliRunner, Result

from dmp_cli.cli import app

from .cases import Ended


def typed(*arguments: Any) -> Result:
    """Type ``dmp ARGUMENTS``; what came of it, after exit code 0.

    Raises:
        Ended: it ended with its own error and exit code 1 or 2.
        BaseException: whatever else escaped from it.
    """
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    error, told = result.exception, result.stderr
    if result.exit_code == 0:
        return result
    if error is not None and not isinstance(error, SystemExit):
        raise error
    if result.exit_code in (1, 2) and "rror" in told and "Traceback" not in told:
        raise Ended(told.strip())
    raise AssertionError(f"exit code {result.exit_code}, and no message but: {told}{result.stdout}{error!r}")
