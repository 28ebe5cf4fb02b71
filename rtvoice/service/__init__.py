"""A service of many conversations on one machine (``pip install "rtvoice[service]"``).

from rtvoice.service import Service

service = Service(make_agent)
app = service.asgi  # for uvicorn, or to be mounted in another ASGI application
"""

from __future__ import annotations

from importlib.util import find_spec

from messages.hints import install

if find_spec("prometheus_client") is None:
    how = install("'rtvoice[service]'")
    raise ModuleNotFoundError(f"rtvoice.service needs a package: {how}", name="prometheus_client")

from rtvoice.service.errors import Busy, Draining
from rtvoice.service.info import CallInfo
from rtvoice.service.service import Service

__all__ = ["Busy", "CallInfo", "Draining", "Service"]
