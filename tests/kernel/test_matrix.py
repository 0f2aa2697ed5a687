"""The matrix: a program sees the same with natsup and without, whatever it does with sockets."""

import os
import sys
import tempfile
from pathlib import Path

import pytest

from tests.kernel import checks
from tests.kernel.twins import twins, wait_for
from tests.nobody import as_nobody

# just conform-long raises it; sequences then differ from run to run.
EXAMPLES = int(os.environ.get("CONFORM_EXAMPLES", "0"))

# As container profiles have it
_PROFILE = """
import errno, os, sys, pyseccomp
rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
rules.add_rule(pyseccomp.ERRNO(errno.EPERM), "pidfd_getfd")
rules.load()
os.execvp(sys.argv[1], sys.argv[1:])
"""
_NO_COPIES = [sys.executable, "-W", "ignore", "-c", _PROFILE]

pytestmark = pytest.mark.timeout(7200 if EXAMPLES else 600)


def test_no_difference(tmp_path: Path) -> None:
    count = EXAMPLES or 500
    with twins(tmp_path) as pair:
        net = pair.net
        assert checks.named(pair) == []
        wait_for(lambda: net.mapped() == [])
        before = net.descriptors()
        assert set(before) == {"natsup", "natsup-guard"}
        assert checks.generated(pair, count, derandomize=not EXAMPLES) == []
        told = net.told().splitlines()
        # It would prove nothing if natsup had not been there.
        assert sum(not line.endswith("removed") for line in told) > count
        wait_for(lambda: net.mapped() == [])
        wait_for(lambda: net.descriptors() == before)  # an idle connection to the router may end
        pair.natsup.end()
        wait_for(lambda: net.descriptors() == {})  # and no process of natsup's is left


@pytest.mark.parametrize(
    ("words", "prefix"),
    [
        pytest.param(["--ephemeral"], [], id="ephemeral"),
        pytest.param(["--own-address"], [], id="own address"),
        pytest.param(["--as-parent"], [], id="as parent"),
        pytest.param(["--track-close", "seccomp"], [], id="closes trapped"),
        pytest.param([], as_nobody(), id="nobody"),
        pytest.param([], _NO_COPIES, id="no copies"),
    ],
)
def test_no_difference_with(words: list[str], prefix: list[str]) -> None:
    """The same with natsup's options, without root, and where sockets cannot be copied."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        with twins(folder, *words, prefix=prefix) as pair:
            assert checks.named(pair) == []
            count = max(60, EXAMPLES // 10)
            # A port that natsup has chosen counts as one that the program has asked for, and the
            # kernel does not let go of it with a connection (SOCK_BINDPORT_LOCK).
            without = ("connect", "disconnect") if "--ephemeral" in words else ()
            found = checks.generated(pair, count, derandomize=not EXAMPLES, without=without)
            assert found == []
            assert "→" in pair.net.told()
