"""A web page to talk with an assistant (``pip install "rtvoice[web]"``).

from rtvoice.service import Service
from rtvoice.web import Page

service = Service(make_agent, view="talk")
page = Page(service)  # an ASGI application; mount it
"""

from __future__ import annotations

from rtvoice.web.page import Page

__all__ = ["Page"]
