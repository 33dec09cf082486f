"""`penstock demo`."""

from pathlib import Path

import click

from app.cli.context import Context, pass_context
from app.demo.producer import DEFAULT_RATE
from app.demo.run import BAD_SHARE, DemoOptions, run


@click.command()
@click.option("--events", type=click.IntRange(min=1), help="How many flights to replay; default: all after January.")
@click.option(
    "--rate", type=click.FloatRange(min=1), default=DEFAULT_RATE, show_default=True, help="Events per second."
)
@click.option(
    "--bad-share",
    type=click.FloatRange(0, 0.04),
    default=BAD_SHARE,
    show_default=True,
    help="Share of events that are broken on purpose, to show dead letters.",
)
@click.option(
    "--headless",
    is_flag=True,
    help="Print plain lines instead of the screen, open no browser, and end with the replay.",
)
@click.option("--no-browser", is_flag=True, help="Do not open the live page; its address is printed.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Write the result here.")
@pass_context
def demo(
    context: Context,
    events: int | None,
    rate: float,
    bad_share: float,
    headless: bool,
    no_browser: bool,
    json_path: Path | None,
) -> None:
    """Replay a year of real flights: a champion is trained on January and scores the rest, live.

    Needs nothing but this program: without ML_KAFKA_BOOTSTRAP the embedded broker is used. The worker serves the live
    page, on a free port unless ML_PAGE_PORT names one; on a terminal it goes on doing so until Ctrl-C.

    Exit code 0 means that every event became exactly one prediction or one dead letter, every label of a scored event
    one sample, that drift found the distances in kilometres at the end, if a window of 2,000 events was full of them,
    and that 1,000 random predictions, executed again, had the very score that was logged.
    """
    settings = context.settings()
    options = DemoOptions(
        events=events,
        rate=rate,
        bad_share=bad_share,
        headless=headless,
        browser=not no_browser,
        json_path=json_path,
    )
    raise click.exceptions.Exit(run(settings, options))
