"""What a conversation uses and costs: tokens by kind, prices by model and day, budgets.

The table is `PRICES`; its source and its day are named in ``messages/prices.py``.
``Agent(prices=…)`` puts prices of your own before it.
"""

from __future__ import annotations

import msgspec

from messages import Budget, Price, Tokens
from messages.prices import PRICES, price_of

__all__ = ["PRICES", "Budget", "Price", "Tokens", "Usage", "price_of"]


class Usage(msgspec.Struct, frozen=True):
    """What a conversation has used so far: `Agent.usage`.

    Example:
        ```python
        import asyncio

        from rtvoice import Agent, UsageUpdated

        async def main() -> None:
            agent = Agent(server="sandbox", audio_input="silence", audio_output="null")
            async with agent:
                agent.send_text("what is your name")
                async for _ in agent.events(UsageUpdated):
                    print(agent.usage.tokens.total, agent.usage.dollars)
                    await agent.stop()

        asyncio.run(main())
        ```
    """

    tokens: Tokens = Tokens()
    dollars: float | None = 0.0
    """Its price in US dollars, without transcription; None: the price of the model is not known."""
