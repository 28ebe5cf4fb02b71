"""``--web``, its page, and what callers with a view send."""

from __future__ import annotations

import importlib.util
import json
import socket

from rtvoice.service.frames import BadFrameError, Frame
from rtvoice.service.talk import Talk
from rtvoice.web.doors import Doors
from tests.bad_input.rows import Outcome, World, row
from tests.bad_input.usage import says


@row("`--web --host 0.0.0.0` without TLS")
def host_without_tls(world: World) -> Outcome:
    return says("--web", "--host", "0.0.0.0")


@row("`--web --tls-cert cert.pem` without `--tls-key`")
def certificate_alone(world: World) -> Outcome:
    return says("--web", "--tls-cert", "cert.pem")


@row("`--web --tls-cert cert.pem --tls-key key.pem`, which do not exist")
def no_certificate(world: World) -> Outcome:
    return says("--web", "--tls-cert", "cert.pem", "--tls-key", "key.pem")


@row("`--web --tls-cert cert.pem --tls-key key.pem`, which are something else")
def other_certificate(world: World) -> Outcome:
    for name in ("cert.pem", "key.pem"):
        world.file(name, "a shopping list\n")
    return says("--web", "--tls-cert", "cert.pem", "--tls-key", "key.pem")


@row("`--web --port 70000`")
def port_out_of_range(world: World) -> Outcome:
    return says("--web", "--port", "70000")


@row("`--web --port N`, which is in use")
def port_in_use(world: World) -> Outcome:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        return says("--web", "--port", str(port), "--server", "sandbox")


@row("`--web --input default`")
def web_with_input(world: World) -> Outcome:
    return says("--web", "--input", "default")


@row("`--port 8080` without `--web`")
def port_without_web(world: World) -> Outcome:
    return says("--port", "8080")


@row("`--web` without uvicorn")
def web_without_uvicorn(world: World) -> Outcome:
    found = importlib.util.find_spec
    missing = "rtvoice.command.web.find_spec"
    world.patch.setattr(missing, lambda name: None if name == "uvicorn" else found(name))
    return says("--web")


@row("The page without the key in its address")
def page_without_key(world: World) -> Outcome:
    return Outcome(Doors("secret", ()).why_not({"host": "127.0.0.1:8080"}, {}), None)


@row("The page under another name, which points to this machine")
def page_rebound(world: World) -> Outcome:
    doors = Doors("secret", ("127.0.0.1",))
    return Outcome(doors.why_not({"host": "rebound.example"}, {"key": "secret"}), None)


def _sends(*frames: Frame, scope: str = "all", **hello: object) -> Outcome:
    """Return with what a call is closed whose caller sends this."""
    talk = Talk(scope)  # type: ignore[arg-type]
    try:
        talk.greeted(json.dumps({"rate": 24000, "view": True} | hello))
        for frame in frames:
            talk.received(frame)
    except BadFrameError as error:
        return Outcome(f"{error.code}: {error}", None)
    return Outcome("", None)


@row('`"view": true` where the service shows none')
def view_not_shown(world: World) -> Outcome:
    return _sends(scope="none")


@row('`"view": "yes"`')
def view_no_boolean(world: World) -> Outcome:
    return _sends(view="yes")


@row("An unknown command")
def unknown_command(world: World) -> Outcome:
    return _sends('{"type": "sing"}')


@row("A command without what it needs")
def command_without_text(world: World) -> Outcome:
    return _sends('{"type": "say"}')


@row("A command with a value of the wrong type")
def command_of_wrong_type(world: World) -> Outcome:
    return _sends('{"type": "volume", "volume": "loud"}')


@row("`kill` from a caller who may not")
def kill_not_allowed(world: World) -> Outcome:
    return _sends('{"type": "kill", "component": "speaker"}', scope="talk")


@row("An image of another size than announced")
def image_of_other_size(world: World) -> Outcome:
    return _sends('{"type": "image", "bytes": 3}', b"abcd")


@row("An image of more than 4 MiB")
def image_too_large(world: World) -> Outcome:
    return _sends('{"type": "image", "bytes": 4194305}')
