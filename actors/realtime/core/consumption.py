"""What the conversation uses: tokens, their price, and the end of its budget."""

from __future__ import annotations

from typing import Literal

from actors.realtime.core.closing import Closing
from actors.realtime.core.context import Context
from messages import Budget, BudgetUsed, Tokens, UsageUpdated
from messages.prices import day_of, price_of
from messages.urls import model_in

__all__ = ["BUDGET", "Consumption"]

BUDGET = "budget"
"""The reason of an end by the budget."""
_STEPS: tuple[tuple[Literal[80, 100], float], ...] = ((80, 0.8), (100, 1.0))
"""The percentages that are published, and the shares that they stand for."""
_GOODBYE = (
    "Then tell the user in one short sentence that the conversation has to end now, and say "
    "goodbye. Call no tool for that."
)


class Consumption:
    """Adds up tokens and dollars, and ends the conversation when its budget is used up.

    The sums are saved, so that they outlive each process. They are published as sums: an event that
    is lost, or comes twice, changes nothing.
    """

    def __init__(self, context: Context, closing: Closing) -> None:
        self._context = context
        self._closing = closing
        self._model = model_in(context.settings.server) or context.settings.model
        self._price = price_of(self._model, None, context.settings.prices)

    def today(self, unix_ns: int) -> None:
        """Use the prices of a day."""
        prices = self._context.settings.prices
        self._price = price_of(self._model, day_of(unix_ns), prices)

    def resumed(self) -> None:
        """Publish what the conversation has used before this process."""
        if self._context.saved.used.total:
            self._publish("")

    def add(self, response_id: str, tokens: Tokens) -> None:
        """Count the tokens of a response."""
        saved = self._context.saved
        if not tokens.total:
            return
        if self._price is not None:
            saved.dollars += self._price.dollars(tokens)
        elif not saved.used.total:  # once a conversation
            text = "no price is known for the model: only its tokens are counted"
            self._context.log("info", text, model=self._model)
        saved.used += tokens
        self._publish(response_id)

    def tick(self, now: int) -> None:
        """End the conversation when its budget is used up, and no tool call is open.

        A call is waited for, so that one answer tells its outcome and says goodbye.
        """
        saved = self._context.saved
        if saved.budget_percent == 100 and not saved.calls:
            self._closing.say_goodbye(BUDGET, _GOODBYE, now)

    def _publish(self, response_id: str) -> None:
        saved, budget = self._context.saved, self._context.settings.budget
        dollars = None if self._price is None else saved.dollars
        self._context.publish(UsageUpdated(response_id, saved.used, dollars))
        share = _share(budget, saved.used.total, saved.dollars)
        for percent, least in _STEPS:
            if share >= least and saved.budget_percent < percent:
                saved.budget_percent = percent
                self._context.publish(BudgetUsed(percent, saved.used.total, dollars))


def _share(budget: object, tokens: int, dollars: float) -> float:
    """Return the share of a budget that is used."""
    if not isinstance(budget, Budget):
        return 0.0
    of_dollars = dollars / budget.dollars if budget.dollars is not None else 0.0
    return max(of_dollars, tokens / budget.tokens if budget.tokens is not None else 0.0)
