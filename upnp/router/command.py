"""`natsup gateway`: the small gateway alone, on given addresses."""

import argparse
import sys
from ipaddress import IPv4Address

import trio

from natsup.upnp.router.server import Router


def main(words: list[str] | None = None) -> int:
    """Serve until interrupted. Returns the exit status; 125 where it cannot start."""
    parser = argparse.ArgumentParser(
        prog="natsup gateway",
        description=(
            "A small UPnP router that forwards TCP and UDP in user space, for trying natsup and for"
            " tests. It maps ports of its external address to hosts that reach its internal one."
        ),
    )
    parser.add_argument(
        "--internal",
        type=_address,
        required=True,
        metavar="ADDRESS",
        help="this host's address on the inside, where it is asked",
    )
    parser.add_argument(
        "--external",
        type=_address,
        required=True,
        metavar="ADDRESS",
        help="this host's address on the outside, where mapped ports are opened",
    )
    parser.add_argument(
        "--port", type=int, default=0, help="of its HTTP on the inside [any that is free]"
    )
    options = parser.parse_args(words)

    def tell(line: str) -> None:
        print(line, flush=True)

    async def run() -> None:
        router = Router(options.internal, options.external, tell)
        async with trio.open_nursery() as nursery:
            location = await nursery.start(router.serve, options.port)
            tell(f"router: ready, its description is at {location}")

    status = 0
    try:
        trio.run(run)
    except* KeyboardInterrupt:
        pass
    except* OSError as group:
        (error, *_) = _leaves(group)
        print(
            f"natsup gateway: {options.internal} cannot be served: {error.strerror or error};"
            " it must be an address of this host, and UDP port 1900 free",
            file=sys.stderr,
        )
        status = 125
    return status


def _leaves(group: BaseExceptionGroup[OSError]) -> list[OSError]:
    found: list[OSError] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _address(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IPv4 address") from None


if __name__ == "__main__":
    sys.exit(main())
