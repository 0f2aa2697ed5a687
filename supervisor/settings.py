"""What `natsup exec` is to do, from all layers: files, the environment, the command line.

A file is looked for, and only where there is one are the libraries imported that read it.
"""

import os
from _collections_abc import Mapping, Sequence

from natsup.supervisor import options

SYSTEM = "/etc/natsup/config.toml"
NONE = "none"  # for the name of a file


class Found:
    """``decided``: what counts, and who gave it; ``files``: those that were read."""

    __slots__ = ("command", "decided", "files", "settings")

    def __init__(
        self, decided: dict[str, list[options.Given]], command: list[str], files: list[str]
    ) -> None:
        self.decided = decided
        self.command = command
        self.files = files
        self.settings = options.values(decided, os.curdir)

    def words(self) -> list[str]:
        """A command line that says it all, for the supervisor."""
        return [*options.as_words(self.decided), "--", *self.command]


def read(words: Sequence[str], environ: Mapping[str, str]) -> Found:
    """Read all layers. ``words``: what follows ``natsup exec``. Raises `BadOption`, `Help`."""
    given, command = options.split(words)
    return found(given, command, environ)


def found(given: Sequence[options.Given], command: list[str], environ: Mapping[str, str]) -> Found:
    """The same, of a command line that has been taken apart. Raises `BadOption`."""
    layers: list[options.Layer] = [options.of_environment(environ), given]
    chosen = next(
        (
            one.text
            for layer in reversed(layers)
            for one in reversed(layer)
            if one.option.name == "config"
        ),
        None,
    )
    files = [path for path in places(environ, chosen) if _is_there(path, chosen)]
    if files:
        from natsup.supervisor import config

        program = os.path.basename(command[0]) if command else None
        layers[:0] = [layer for path in files for layer in config.read(path).layers(program)]
    return Found(options.decide(layers), command, files)


def of_network(told: options.Settings, environ: Mapping[str, str]) -> list[str]:
    """How to find the router, for other commands: fill in what their options leave open.

    ``told``: the values of their options ``gateway`` and ``interface``, None where not given. What
    is wrong with these raises `BadOption`, unless it has been overridden; whatever else is wrong
    with files and the environment is in the way of `natsup exec` alone, and returned.
    """
    from natsup.supervisor.options_check import check

    open_keys = {key for key in ("gateway", "interface") if told[key] is None}
    mistakes: list[str] = []
    own: list[options.Given] = []
    for name, text in environ.items():
        try:
            own += options.of_environment({name: text})
        except options.BadOption as error:
            key = name.removeprefix("NATSUP_").lower()
            if key in open_keys:
                raise
            if key not in told:
                mistakes.append(str(error))
    layers: list[options.Layer] = []
    chosen = next((one.text for one in own if one.option.name == "config"), None)
    for path in places(environ, chosen):
        if _is_there(path, chosen):
            from natsup.supervisor import config

            try:
                layers += config.read(path).layers(None)
            except options.BadOption as error:
                mistakes.append(str(error))
    decided = options.decide([*layers, own])
    decided = {key: layer for key, layer in decided.items() if key in open_keys}
    settings = options.values(decided, os.curdir)
    check(settings, environ, decided)
    told.update((key, settings[key]) for key in open_keys)
    return mistakes


def places(environ: Mapping[str, str], chosen: str | None) -> list[str]:
    """Where configuration files may stand; what the last one says comes first. Pure.

    ``chosen``: the file to be read in place of the user's own, or ``none``.
    """
    if chosen is not None:
        return [SYSTEM] if chosen == NONE else [SYSTEM, chosen]
    folder = environ.get("XDG_CONFIG_HOME") or ""
    if not os.path.isabs(folder):  # which the specification has ignored
        home = environ.get("HOME") or ""
        if not os.path.isabs(home):
            return [SYSTEM]
        folder = os.path.join(home, ".config")
    return [SYSTEM, os.path.join(folder, "natsup", "config.toml")]


def _is_there(path: str, chosen: str | None) -> bool:
    """Is there such a file? A home that this user may not even enter is another's, and has none of
    his; what else cannot be looked at is, and reading it will say why not."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return path == chosen
    except OSError:
        return path in (SYSTEM, chosen)
    return True
