"""Judges events, one JSON object a line, by the strict schema of openai-agents.

It prints those that it refuses, each a line with the number of the event and the reason.
"""

from __future__ import annotations

import json
import sys

from agents.realtime.openai_realtime import get_server_event_type_adapter
from pydantic import ValidationError

if __name__ == "__main__":
    adapter = get_server_event_type_adapter()
    for number, line in enumerate(sys.stdin):
        try:
            adapter.validate_python(json.loads(line))
        except ValidationError as error:
            print(number, repr(str(error)), line.strip())
