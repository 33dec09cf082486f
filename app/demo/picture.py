"""The README's picture: ROC AUC month by month, as served and with January's model alone, out of the demo's JSON.

    python -m app.demo.picture demo.json docs/retraining.svg

Needs the extra `train` (matplotlib). The same JSON gives the same bytes.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Final

_INK: Final = {"static": "#8a8f98", "served": "#0b7a75", "promoted": "#c8553d"}
_MONTH_S: Final = 365.25 / 12 * 86_400


def picture(said: Mapping[str, Any]) -> bytes:
    """Return an SVG of what the demo's JSON says. Raises KeyError where that is of another program."""
    import matplotlib  # only here, and it takes a second

    matplotlib.use("Agg")
    from matplotlib import pyplot

    months: Sequence[Mapping[str, Any]] = said["auc_by_month"]
    with pyplot.rc_context({"svg.hashsalt": "penstock", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure, axes = pyplot.subplots(figsize=(8, 3.7))
        places = range(len(months))
        for name, words in (("static", "January's model alone"), ("served", "as served, trained anew")):
            axes.plot(places, [month[name] for month in months], color=_INK[name], marker="o", lw=2, label=words)
        for number, promotion in enumerate(said["promoted"]):
            label = "a new champion takes over" if number == 0 else None
            axes.axvline(_place(promotion["event_time_ms"]), color=_INK["promoted"], lw=1, ls="--", label=label)
        axes.set_xticks(list(places), [month["month"] for month in months])
        axes.set_ylabel("ROC AUC")
        axes.set_title(_title(said["auc"]), fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9)
        figure.tight_layout()
        written = BytesIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return written.getvalue()


def _place(event_time_ms: int) -> float:
    """Return where a moment of 2013 stands on an axis on which the middle of February is 0 and a month is 1."""
    february = datetime(2013, 2, 15, tzinfo=UTC).timestamp()
    return (event_time_ms / 1000 - february) / _MONTH_S


def _title(auc: Mapping[str, Any]) -> str:
    return (
        f"Flights from Newark, 2013: ROC AUC {auc['served']:.3f} as served, {auc['static']:.3f} with January's model\n"
        f"The difference is {auc['difference']:+.3f}, with the 95% interval {auc['low']:+.3f} to {auc['high']:+.3f}."
    )


def main() -> None:
    """Draw what the first file says into the second."""
    source, target = map(Path, sys.argv[1:])
    target.write_bytes(picture(json.loads(source.read_text())))


if __name__ == "__main__":
    main()
