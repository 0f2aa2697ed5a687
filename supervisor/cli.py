"""The command line. `natsup exec` must be quick: nothing else is imported on its way."""

import _signal  # type: ignore[import-not-found]
import gc
import os
import sys

# Who starts a program by natsup and interrupts it expects it to die of that, however early. Python
# has a handler of its own only where the signal was not ignored; exec would take it away anyway.
# (The module around _signal takes time to import, in which Ctrl-C would still be an exception.)
if sys.argv[1:2] == ["exec"] and _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

from natsup.supervisor.complaints import complain


def main() -> int:
    """The entry point of the command `natsup`. Returns the exit status."""
    words = sys.argv[1:]
    try:
        if words[:1] == ["exec"]:
            return _exec(words[1:])
        from natsup.supervisor import commands

        return commands.main(words)
    except BaseException as error:
        from natsup.supervisor import crash

        return crash.end(error)


def _exec(words: list[str]) -> int:
    gc.disable()  # it would run several times during the imports, and find nothing
    from natsup.supervisor import options, settings
    from natsup.supervisor.filter import under_natsup
    from natsup.supervisor.launch import LaunchFailed, run, run_inside
    from natsup.supervisor.options_check import check
    from natsup.supervisor.surroundings import parent_needed

    try:
        found = settings.read(words, os.environ)
        inside = under_natsup()
        if not inside:  # or they come to nothing, and a descriptor in them may be another's here
            check(found.settings, os.environ, found.decided)
    except options.Help:
        from natsup.supervisor import output

        return output.checked(lambda: print(options.help_text()) or 0)
    except options.BadOption as error:
        return complain(str(error))
    wanted = found.settings
    try:
        if inside:
            run_inside(found.command, argv0=wanted["argv0"])
        return run(
            found.command,
            found.words(),
            as_parent=wanted["as_parent"] or parent_needed(),
            track_close=wanted["track_close"],
            io_uring=not wanted["no_io_uring"],
            inherited=wanted["inherited"],
            events=wanted["events"],
            argv0=wanted["argv0"],
        )
    except LaunchFailed as error:
        return complain(str(error), error.status)


if __name__ == "__main__":
    sys.exit(main())
