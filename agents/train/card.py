"""A model's card: what it is, where it comes from, what it is worth, and what is not known. Files for people.

`card.md` tells it, `report.json` has all of its figures, and the plots are pictures for both.
"""

import msgspec

from agents.train.card_text import text_of
from agents.train.facts import Card
from agents.train.plots import plots_of


def card_of(card: Card) -> dict[str, bytes]:
    """Return the card's files by name; the same card gives the same bytes. Costs about 1 s, nearly all of it plots."""
    plots = plots_of(card)
    return {
        "card.md": text_of(card, tuple(plots)).encode(),
        "report.json": msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n",
        **plots,
    }
