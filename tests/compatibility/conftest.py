"""Commands are typed as in the tests of commands."""

from tests.commands.conftest import run as run
