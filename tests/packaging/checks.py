"""What a new user types, in a Debian that has nothing else: pipx, uv, and a Debian package."""

from tests.packaging.box import Box

USER = 1000
# What bind() makes of a port, under natsup where there is no router
_PROGRAM = (
    'python3 -c \'import socket; s = socket.socket(); s.bind(("", 16881));'
    ' print("bound", s.getsockname()[1])\''
)


def works(box: Box, natsup: str, *, user: int) -> None:
    """The command is there, runs a program, and does its main job."""
    assert box.do(f"{natsup} --version", user=user).startswith("natsup ")
    assert box.do(f"{natsup} exec -- {_PROGRAM}", user=user) == "bound 16881\n"
    shown = box.do(f"{natsup} demo", user=user)
    assert "bind(6881) failed with EADDRINUSE" in shown
    assert 'Internet → 11.22.33.1:6881   "hello from this host"' in shown


def by_pipx(box: Box, source: str) -> None:
    """``source``: where pip is to find packages, as its options."""
    box.do(f"pipx install natsup --pip-args='{source}'", user=USER)
    works(box, "~/.local/bin/natsup", user=USER)
    box.do("pipx uninstall natsup", user=USER)
    assert box.run("ls ~/.local/bin/natsup", user=USER).returncode != 0


def by_uv(box: Box, source: str) -> None:
    box.do(f"uv tool install --python /usr/bin/python3 natsup {source}", user=USER)
    works(box, "~/.local/bin/natsup", user=USER)
    box.do("uv tool uninstall natsup", user=USER)
    assert box.run("ls ~/.local/bin/natsup", user=USER).returncode != 0


def without_libseccomp(box: Box, natsup: str, *, user: int) -> None:
    """One line names it, and what to install."""
    box.do("mkdir /aside; mv /usr/lib/*/libseccomp.so* /aside; ldconfig")
    try:
        # Not by the filter that was built before, which is kept there
        done = box.run(f"rm -rf ~/.cache/natsup; {natsup} exec -- true", user=user)
        assert done.returncode == 125, done
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert "libseccomp2" in done.stderr
    finally:
        box.do("mv /aside/* $(dirname $(readlink -f /usr/lib/*/libc.so.6)); rmdir /aside; ldconfig")


def by_package(box: Box, package: str) -> None:
    """Installed, used, removed and purged: nothing is left."""
    box.do("ldconfig; touch /var/log/dpkg.log")  # which both write, and nobody removes
    before = box.files()
    box.do(f"dpkg -i {package}")
    works(box, "natsup", user=USER)
    without_libseccomp(box, "natsup", user=USER)
    enabled = "etc/systemd/system/timers.target.wants/natsup-clean.timer"
    assert (box.root / enabled).readlink().name == "natsup-clean.timer"
    unit = (box.root / "usr/lib/systemd/system/natsup-clean.service").read_text()
    assert "\nExecStart=/usr/bin/natsup clean\n" in unit
    assert "Nothing to clean" in box.do("natsup clean")
    added = box.files() - before
    for path in (
        "usr/share/man/man1/natsup.1.gz",
        "usr/share/man/man5/natsup.toml.5.gz",
        "usr/share/bash-completion/completions/natsup",
        "usr/share/zsh/vendor-completions/_natsup",
        "usr/share/fish/vendor_completions.d/natsup.fish",
    ):
        assert path in added, path
        assert "natsup" in box.do(f"case {path} in *.gz) zcat /{path};; *) cat /{path};; esac")
    box.do("mkdir -p /var/lib/natsup && touch /var/lib/natsup/secret")
    box.do("dpkg -r natsup")
    assert (box.root / "var/lib/natsup/secret").exists()
    box.do("dpkg -P natsup")
    left = {path for path in box.files() - before if not path.startswith("var/lib/dpkg")}
    assert not left, sorted(left)
    assert before <= box.files()
