"""A service of many conversations on one machine (``pip install "rtvoice[service]"``).

from rtvoice.service import Service

service = Service(make_agent)
app = service.asgi  # for uvicorn, or to be mounted in another ASGI application
"""

from __future__ import annotations

from rtvoice.service.errors import Busy, Draining
from rtvoice.service.info import CallInfo
from rtvoice.service.service import Service

__all__ = ["Busy", "CallInfo", "Draining", "Service"]
