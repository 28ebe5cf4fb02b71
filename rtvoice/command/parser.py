"""A parser of options that says in one line what is wrong, and which option may be meant."""

from __future__ import annotations

import argparse
import difflib
import sys
from typing import Any, NoReturn

from messages.exit_codes import EXIT_USAGE
from rtvoice.command.printing import fitting

__all__ = ["Parser"]


class Parser(argparse.ArgumentParser):
    """Parses options; wrong usage is one line on standard error, and exit code 2."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **settings
        )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the arguments.

        Raises:
            SystemExit: They are not valid, or ask for the help.
        """
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            unknown = next((each for each in rest if each.startswith("-")), None)
            if unknown is None:
                self.error(f"{rest[0]!r} is one argument too many")
            self.error(self.no_option(unknown))
        return options

    def no_option(self, given: str, otherwise: str = "") -> str:
        """Return what to say of an unknown option.

        Args:
            given: The argument.
            otherwise: What to add if no option is similar; empty: where the options are listed.
        """
        name = given.partition("=")[0]
        known = [option for action in self._actions for option in action.option_strings]
        near = difflib.get_close_matches(name, known, 1, 0.6)
        otherwise = otherwise or f"{self.prog} --help lists them"
        return f"there is no option {name}; {f'did you mean {near[0]}?' if near else otherwise}"

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit."""
        text = f"rtvoice: {message.removeprefix('argument ')}\n"
        sys.stderr.write(fitting(text, sys.stderr))
        sys.exit(EXIT_USAGE)
