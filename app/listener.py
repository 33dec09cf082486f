"""Listening for HTTP at an address that a setting names."""

from aiohttp import web

from schemas.errors import SettingsError


async def listen(runner: web.AppRunner, host: str, port: int, setting: str) -> str:
    """Begin to serve, and return the address; port 0 takes any free one.

    Raises SettingsError, which names the `setting` of the port, when that is taken.
    """
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        raise SettingsError(
            f"{setting} {port} on {host} cannot be used ({error.strerror}): set ML_{setting.upper()}; "
            "0 takes any free one"
        ) from error
    at, bound = runner.addresses[0][:2]
    return f"http://[{at}]:{bound}" if ":" in at else f"http://{at}:{bound}"
