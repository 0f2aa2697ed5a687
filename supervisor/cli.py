"""The command line. `natsup exec` must be quick: nothing else is imported on its way."""

import gc
import os
import sys


def main() -> int:
    """The entry point of the command `natsup`. Returns the exit status."""
    words = sys.argv[1:]
    if words[:1] == ["exec"]:
        return _exec(words[1:])
    from natsup.supervisor import commands

    return commands.main(words)


def _exec(words: list[str]) -> int:
    gc.disable()  # it would run several times during the imports, and find nothing
    from natsup.supervisor import options
    from natsup.supervisor.launch import FAILED, LaunchFailed, run
    from natsup.supervisor.surroundings import parent_needed

    try:
        settings, command = options.parse(words, os.environ, os.curdir)
        options.check(settings, os.environ)
    except options.Help:
        from natsup.supervisor import output

        return output.checked(lambda: print(options.help_text()) or 0)
    except options.BadOption as error:
        return _complain(str(error), FAILED)
    try:
        return run(
            command,
            words,
            as_parent=settings["as_parent"] or parent_needed(),
            track_close=settings["track_close"],
            io_uring=not settings["no_io_uring"],
            inherited=settings["inherited"],
            events=settings["events"],
            argv0=settings["argv0"],
        )
    except LaunchFailed as error:
        return _complain(str(error), error.status)


def _complain(message: str, status: int) -> int:
    print(f"natsup: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
