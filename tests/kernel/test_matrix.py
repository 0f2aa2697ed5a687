"""The matrix: a program sees the same with natsup and without, whatever it does with sockets."""

import os
from pathlib import Path

from tests.kernel import checks
from tests.kernel.twins import twins, wait_for

# just conform-long raises it; sequences then differ from run to run.
EXAMPLES = int(os.environ.get("CONFORM_EXAMPLES", "0"))


def test_no_difference(tmp_path: Path) -> None:
    count = EXAMPLES or 500
    with twins(tmp_path) as pair:
        assert checks.named(pair) == []
        assert checks.generated(pair, count, derandomize=not EXAMPLES) == []
        told = pair.net.told().splitlines()
        # It would prove nothing if natsup had not been there.
        assert sum(not line.endswith("removed") for line in told) > count
        pair.natsup.end()
        wait_for(lambda: pair.net.mapped() == [])
