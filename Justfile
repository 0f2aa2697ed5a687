# natsup's own chores. `just` alone lists them.

python := ".venv/bin/python"

[private]
default:
    @{{just_executable()}} --list

# a virtual environment with natsup, editable, and all that works on it
setup:
    python3 -m venv .venv
    .venv/bin/pip install --quiet --editable '.[dev]'

# the main job, with no router needed
demo: setup
    .venv/bin/natsup demo

# all tests and checks, with what they need; as root, for network namespaces
test *arguments:
    tests/run {{arguments}}

# types, style, and which room may import which
lint: setup
    .venv/bin/ruff check
    .venv/bin/ruff format --check
    .venv/bin/mypy
    .venv/bin/lint-imports

# other people's tests, plain and under natsup: prints the differences; as root
conform *arguments: setup
    tests/conform/install {{python}}
    {{python}} -m tests.conform.conform {{arguments}}

# bind() with natsup and without: 20,000 generated sequences, and long races; half an hour, as root
conform-long: setup
    CONFORM_EXAMPLES=20000 .venv/bin/pytest tests/kernel/test_matrix.py \
        tests/kernel/test_races.py

# natsup's own processes killed, and more, at every step of theirs; half an hour, as root
kill-everything *arguments: setup
    nice {{python}} -m tests.lab.kill_everything {{arguments}}

# a million inputs, coverage-guided, to each reader of foreign bytes; an hour
fuzz *arguments: setup
    .venv/bin/pip install --quiet --editable '.[fuzz]'
    {{python}} -m tests.fuzz {{arguments}}

# the page that is made of what natsup explain says
explain-page: setup
    .venv/bin/natsup explain --markdown > docs/explain.md

# the page that is drawn from what the code imports
architecture: setup
    {{python}} -m tests.docs.architecture

# dist/natsup_VERSION_ARCH.deb, for the Debian that this is
deb:
    packaging/deb dist

# install natsup by pipx, uv and its package on fresh Debians: "bookworm", "trixie"; as root, mmdebstrap
install-test +suites="bookworm trixie": setup
    for suite in {{suites}}; do {{python}} -m tests.packaging.debian $suite || exit 1; done

# the figures, as ratios; needs gcc and strace, and root
bench *arguments: setup
    {{python}} -m tests.bench.bench {{arguments}}

# the pictures in the README, anew
screenshots: setup
    {{python}} -m tests.supervisor.screenshots

# docs/manners.md: what a caller sees of natsup, of tini, and of the program alone; as root
manners *groups: setup
    {{python}} -m tests.manners.table {{groups}}

# a shell in the LAN of a lab with a real router (miniupnpd), as root
lab: setup
    {{python}} -m tests.lab.shell

# much at once: a bomb of binders, threads, 10,000 sockets, a storm of closes; a table; as root
load: setup
    {{python}} -m tests.load.load

# a session that binds and closes for so many minutes, and must not grow; as root
soak minutes="10": setup
    {{python}} -m tests.load.load soak {{minutes}}
