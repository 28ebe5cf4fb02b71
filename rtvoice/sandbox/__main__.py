"""`python -m rtvoice.sandbox`: parses the command line and listens, before the slow imports."""

from __future__ import annotations

import argparse
import errno
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from rtvoice.sandbox.faults import Fault

_USAGE_ERROR: Final = 2
_LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")

_EPILOG: Final = """\
It speaks the protocol of OpenAI's Realtime API (GA), so that clients of that API can connect to it:
programs with OpenAI's library use OPENAI_BASE_URL=http://127.0.0.1:PORT/v1, and any key.

No key is needed; any key is accepted, and none is stored. It understands a short list of spoken
phrases, which it prints when it starts. It repeats typed text that is not one of them, and

  call NAME {"argument": 1}

calls a tool of the session (one call a line). A response.create with the instructions
"Say: Hello there" speaks exactly these words.

Environment:
  RTVOICE_SANDBOX_LISTEN=none      recognise nothing, as if pocketsphinx were not installed
  RTVOICE_SANDBOX_VOICE=builtin    speak with tones, as if espeak-ng were not installed
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the server until a signal or the end of stdin.

    Returns:
        The exit code 2, if it cannot listen. Otherwise it does not return.
    """
    options = _parser().parse_args(arguments)
    # First, so that a signal during the slow imports ends the process cleanly.
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, _exit_cleanly)
    try:
        listening = _listening_socket(options.host, options.port)
    except OSError as error:
        print(_why_not(options.host, options.port, error), file=sys.stderr)
        return _USAGE_ERROR
    if options.until_eof and sys.platform == "linux":
        _die_with_parent()
    # Print this before the slow imports: a client can connect now, and is served after them.
    print(f"listening on {_url(listening)}", flush=True)
    from rtvoice.sandbox.run import run

    return run(listening, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rtvoice.sandbox",
        description="A Realtime API server on this machine. It needs no key and no network.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, this machine)",
    )
    parser.add_argument("--port", type=_port, default=0, help="port (default: any free one)")
    parser.add_argument(
        "--pace",
        type=_pace,
        default=4.0,
        metavar="N",
        help="send speech N times faster than real time; 0: as fast as possible (default: 4)",
    )
    parser.add_argument(
        "--max-session",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="end sessions after this time, as the service does (default: 3600)",
    )
    parser.add_argument(
        "--misbehave",
        type=_fault,
        action="append",
        default=[],
        metavar="FAULT",
        help="inject a fault into each connection, such as 'drop after response.created'; "
        "may be given several times (docs/sandbox.md lists the faults)",
    )
    parser.add_argument(
        "--until-eof",
        action="store_true",
        help="end at the end of stdin: for programs that start it as their child "
        "(on Linux it also ends with the thread that started it)",
    )
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 65535")
    return int(text)


def _pace(text: str) -> float:
    try:
        pace = float(text)
    except ValueError:
        pace = -1.0
    if not pace >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return pace


def _fault(text: str) -> Fault:
    from rtvoice.sandbox.faults import FaultError, parse_fault

    try:
        return parse_fault(text)
    except FaultError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _exit_cleanly(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit(0)


def _listening_socket(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError:
        listening.close()
        raise
    return listening


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"ws://{f'[{host}]' if ':' in host else host}:{port}/v1/realtime"


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"Port {port} is in use by another program. "
            "Choose another with --port, or leave it out to get a free one."
        )
    if error.errno == errno.EACCES:
        return f"This user may not listen on port {port}. Choose one above 1023 with --port."
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f"This machine has no address {host}. The usual one is 127.0.0.1."
    return f"Cannot listen on {host} port {port}: {error}"


def _die_with_parent() -> None:
    """Make Linux kill this process when its parent ends, even if it is stopped or stuck."""
    import ctypes

    # PR_SET_PDEATHSIG (prctl(2)). If the parent has ended before this call, stdin has ended too.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
