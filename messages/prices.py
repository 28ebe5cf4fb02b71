"""What the Realtime models cost, by model and day, and the budget of a conversation.

Source: the models' pages at https://developers.openai.com and the price map of litellm 1.110.2,
read on 2026-11-30. Transcription of the user's speech is billed apart, by the minute or by tokens
of its own, and is not in the table.
"""

# No `from __future__ import annotations`: children would have to compile the annotations.

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from messages.usage import Tokens

__all__ = ["PRICES", "Budget", "Price", "day_of", "price_of"]

_Dollars = Annotated[float, Meta(ge=0.0)]


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model costs from a day on: US dollars per million tokens, by kind.

    Example:
        ```python
        from rtvoice import Price, Tokens

        price = Price(input_audio=32.0, output_audio=64.0)
        print(price.dollars(Tokens(input_audio=600, output_audio=1200)))
        ```
    """

    since: dt.date = dt.date.min
    """The first day of this price."""
    input_text: _Dollars = 0.0
    input_audio: _Dollars = 0.0
    input_image: _Dollars = 0.0
    cached_text: _Dollars = 0.0
    """Of input that the service had in its cache, in place of ``input_text``."""
    cached_audio: _Dollars = 0.0
    cached_image: _Dollars = 0.0
    output_text: _Dollars = 0.0
    output_audio: _Dollars = 0.0

    def dollars(self, tokens: Tokens) -> float:
        """Return the price of tokens in US dollars."""
        micro = (
            (tokens.input_text - tokens.cached_text) * self.input_text
            + (tokens.input_audio - tokens.cached_audio) * self.input_audio
            + (tokens.input_image - tokens.cached_image) * self.input_image
            + tokens.cached_text * self.cached_text
            + tokens.cached_audio * self.cached_audio
            + tokens.cached_image * self.cached_image
            + tokens.output_text * self.output_text
            + tokens.output_audio * self.output_audio
        )
        return micro / 1_000_000


class Budget(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a conversation may use; it ends with whichever limit is reached first.

    Example:
        ```python
        from rtvoice import Agent, Budget

        agent = Agent(budget=Budget(dollars=0.50, tokens=200_000))
        ```
    """

    dollars: Annotated[float, Meta(gt=0.0)] | None = None
    """US dollars; None: no limit."""
    tokens: Annotated[int, Meta(gt=0)] | None = None
    """Tokens of any kind, in and out, those of the cache too; None: no limit."""


_READ = dt.date(2026, 11, 30)
_SNAPSHOT = re.compile(r"-\d{4}-\d\d-\d\d$")

_LARGE = Price(
    since=_READ,
    input_text=4.00,
    cached_text=0.40,
    output_text=24.00,
    input_audio=32.00,
    cached_audio=0.40,
    output_audio=64.00,
    input_image=5.00,
    cached_image=0.50,
)
_EARLIER = replace(_LARGE, output_text=16.00)
_MINI = Price(
    since=_READ,
    input_text=0.60,
    cached_text=0.06,
    output_text=2.40,
    input_audio=10.00,
    cached_audio=0.30,
    output_audio=20.00,
    input_image=0.80,
    cached_image=0.08,
)
_EARLIER_MINI = replace(_MINI, input_image=0.0, cached_image=0.0)

PRICES: Mapping[str, tuple[Price, ...]] = {
    "gpt-realtime-2.1": (_LARGE,),
    "gpt-realtime-2": (_LARGE,),
    "gpt-realtime-2.1-mini": (_MINI,),
    "gpt-realtime-1.5": (_EARLIER,),
    "gpt-realtime": (_EARLIER,),
    "gpt-realtime-mini": (_EARLIER_MINI,),
}
"""The prices of each model, one for each day on which they changed."""


def price_of(
    model: str, day: dt.date | None = None, prices: Mapping[str, Sequence[Price]] | None = None
) -> Price | None:
    """Return the price of a model on a day; None: it is not known.

    Example:
        ```python
        from datetime import date

        from rtvoice import price_of

        print(price_of("gpt-realtime-2.1", date(2026, 12, 1)))
        ```

    Before the first day of the table, the first price counts. A snapshot such as
    ``gpt-realtime-2025-08-28`` costs what its model does, unless it is in the table itself.

    Args:
        model: The name of the model.
        day: The day; None: the last one of the table.
        prices: Prices that come before those of `PRICES`; None: none.
    """
    day = day or dt.date.max
    for table in (prices or {}, PRICES):
        for name in (model, _SNAPSHOT.sub("", model)):
            if known := sorted(table.get(name, ()), key=lambda price: price.since):
                return next((one for one in reversed(known) if one.since <= day), known[0])
    return None


def day_of(unix_ns: int) -> dt.date:
    """Return the day, in UTC, of a time in nanoseconds since 1970."""
    return dt.datetime.fromtimestamp(unix_ns // 1_000_000_000, dt.UTC).date()
