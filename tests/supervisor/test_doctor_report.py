"""How `natsup doctor` says what it has found: the picture, the order, the terminal."""

import os
import pty
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from natsup.supervisor import quirks
from natsup.supervisor.doctor_facts import Answer, Asked, Facts, Firewall, Hairpin
from natsup.supervisor.doctor_findings import Finding, Level
from natsup.supervisor.doctor_hairpin import worth_trying
from natsup.supervisor.doctor_path import Station, findings, path, to_do
from natsup.supervisor.doctor_report import Paper, as_json, as_text, picture
from natsup.supervisor.doctor_router import model, of_asked
from natsup.supervisor.doctor_way_in import of_way_in
from natsup.supervisor.firewall_rules import Drop, Packet
from natsup.supervisor.screen import in_ascii
from natsup.upnp.description import Device, device
from tests.supervisor.conftest import NATSUP
from tests.supervisor.test_doctor import FOLDER, KERNEL, MAPPING, NETWORK, NO, RIGHTS, ROUTER

FRITZ = Device("AVM Berlin", "FRITZ!Box 7590", ("AVM Berlin", "FRITZ!Box 7590"))
FACTS = Facts(KERNEL, RIGHTS, FOLDER, NETWORK, replace(ROUTER, device=FRITZ))
STATIONS = [
    Station("program", (), None),
    Station("natsup", ("192.168.1.2",), Level.OK),
    Station("router", ("192.168.1.1", "Box"), Level.PROBLEM),
    Station("Internet", (), None),
]
TODO = [
    Finding("b", "Better", Level.WARNING, "slow", "faster"),
    Finding("g", "Good", Level.OK, "fine"),
    Finding("p", "Broken", Level.PROBLEM, "no", "mend it"),
    Finding("q", "Broken, too", Level.PROBLEM, "no", "mend that"),
]


def test_the_picture() -> None:
    assert picture(STATIONS, Paper()) == [
        "program ──✓──▶ natsup ───────✗──▶ router ───────?──▶ Internet",
        "               192.168.1.2        192.168.1.1",
        "                                  Box",
    ]


def test_the_picture_in_ascii() -> None:
    paper = Paper(utf8=False)
    assert in_ascii("\n".join(picture(STATIONS, paper))).splitlines() == [
        "program --ok--> natsup -------XX--> router -------??--> Internet",
        "                192.168.1.2         192.168.1.1",
        "                                    Box",
    ]


def test_the_picture_where_there_is_no_room() -> None:
    assert picture(STATIONS, Paper(width=20)) == [
        "program",
        "  │ ✓",
        "natsup",
        "192.168.1.2",
        "  │ ✗",
        "router",
        "192.168.1.1",
        "Box",
        "  │ ?",
        "Internet",
    ]


@pytest.mark.parametrize("width", [1, 8, 20, 40, 80, 200])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    found = findings(FACTS)
    text = as_text(found, path(FACTS), Paper(width=width))
    longest_word = max(len(word) for word in text.split())
    assert max(map(len, text.splitlines())) <= max(width, longest_word + 4, 28)
    for finding in found:  # nothing is left out
        assert "".join(finding.advice.split()) in "".join(text.split())


def test_the_path() -> None:
    stations = path(FACTS)
    assert [one.name for one in stations] == ["program", "natsup", "router", "Internet"]
    assert [one.reached for one in stations] == [None, Level.OK, Level.OK, Level.OK]
    assert stations[2].details == ("192.168.1.1", "AVM Berlin FRITZ!Box 7590")
    assert stations[3].details == ("9.9.9.9",)
    broken = replace(FACTS, kernel=replace(KERNEL, listener=NO))
    assert path(broken)[1].reached is Level.PROBLEM
    silent = replace(FACTS, router=replace(ROUTER, reason="no answer", mapping=None))
    assert [one.reached for one in path(silent)][2:] == [Level.PROBLEM, None]
    shared = replace(FACTS, router=replace(ROUTER, external="100.64.0.1"))
    assert path(shared)[3].reached is Level.PROBLEM
    nowhere = replace(FACTS, network=replace(NETWORK, used=None, reason="none"), router=None)
    assert path(nowhere)[2] == Station("router", (), Level.PROBLEM)


def test_the_first_thing_comes_first() -> None:
    assert [one.id for one in to_do(TODO)] == ["p", "q", "b"]
    lines = as_text(TODO).splitlines()
    assert lines[-3] == "Do this first: Broken: mend it"
    assert lines[-2] == "Then look at: Broken, too, Better"
    assert not [line for line in as_text(TODO[1:2]).splitlines() if line.startswith("Do")]


def test_the_document_of_all() -> None:
    asked = Asked("eth0", "192.168.1.1", "192.168.1.2", True, (Answer("upnp", "http://x"),))
    document = as_json(findings(FACTS), replace(FACTS, asked=(asked,)))
    assert list(document) == ["ok", "next", "path", "interfaces", "router", "checks"]
    assert document["router"] == {
        "address": "192.168.1.1",
        "location": ROUTER.location,
        "external": "9.9.9.9",
        "vendor": "AVM Berlin",
        "model": "FRITZ!Box 7590",
        "quirks": ["fritzbox-permission", "fritzbox-lease"],
    }
    assert document["interfaces"][0]["answers"] == {
        "upnp": {"location": "http://x", "reason": None}
    }
    nothing = as_json([], replace(FACTS, router=None))
    assert nothing["router"].pop("quirks") == []
    assert set(nothing["router"].values()) == {"192.168.1.1", None}


def test_who_answers() -> None:
    yes, no = Answer("upnp", "http://x"), Answer("pcp", "", "it does not")
    kinds = [(True, (yes, no)), (True, (no,)), (False, (yes,)), (False, (no,)), (False, ())]
    asked = [Asked("e", "", "1.2.3.4", used, answers) for used, answers in kinds]
    found = of_asked(asked)
    assert [one.level.value for one in found] == ["ok", "note", "note", "ok", "ok"]
    assert found[0].found == "by e, from 1.2.3.4: UPnP yes, PCP no"
    assert found[4].found.endswith("nobody")
    assert "--interface e" in found[2].advice


@pytest.mark.parametrize(
    ("came", "shut", "level", "says"),
    [
        (Hairpin.CAME, False, "ok", "came back in"),
        (Hairpin.LOST, False, "note", "no hairpin"),
        (Hairpin.ASTRAY, False, "note", "something else answers"),
        (Hairpin.LOST, True, "note", "past the firewall here"),
    ],
)
def test_the_way_back_in(came: Hairpin, shut: bool, level: str, says: str) -> None:
    drop = Drop("ip f", "i", "i", "drop", True) if shut else None
    firewall = Firewall(Packet("eth0", "192.168.1.2", "tcp", 50000), "", drop=drop)
    router = replace(ROUTER, mapping=replace(MAPPING, hairpin=came))
    *_, found = of_way_in(router, (firewall,), "")
    assert (found.id, found.level.value) == ("hairpin", level)
    assert says in found.found


@pytest.mark.parametrize(
    ("address", "worth"),
    [("9.9.9.9", True), ("10.0.0.1", True), ("100.64.0.1", True)]
    + [(bad, False) for bad in ("", None, "0.0.0.0", "127.0.0.1", "224.0.0.1", "x", "::1")],
)
def test_addresses_to_come_in_by(address: str | None, worth: bool) -> None:
    assert worth_trying(address) is worth


# --- routers ---


def test_a_router_says_what_it_is() -> None:
    text = (Path(__file__).parents[1] / "gateway" / "descriptions" / "plain.xml").read_text()
    said = device(text)
    assert said.vendor in said.names
    assert said.model in said.names
    odd = device(
        "<root><device><manufacturer>A&amp;B</manufacturer><modelName>R\x1b[2J9</modelName>"
        "<modelNumber>v2</modelNumber></device>" + "<modelName>x</modelName>" * 1000
    )
    assert (odd.vendor, odd.model) == ("A&B", "R\x1b[2J9 v2")
    assert len(odd.names) < 20
    assert device("") == Device()
    assert len(device(f"<manufacturer>{'x' * 900}</manufacturer>").vendor) == 64


def test_models_as_people_say_them() -> None:
    assert model(Device("ACME", "ACME R1")) == "ACME R1"
    assert model(Device("ACME", "R1")) == "ACME R1"
    assert model(Device()) == "it does not say"


@pytest.mark.parametrize(
    ("vendor", "name", "known"),
    [
        ("AVM Berlin", "FRITZ!Box 7590", {"fritzbox-permission", "fritzbox-lease"}),
        ("MikroTik", "MikroTik Router", {"mikrotik-permanent"}),
        ("TP-Link", "ER605", {"er605-low-ports", "tplink-manual"}),
        ("ASUSTeK Computer Inc.", "RT-AX88U", {"asus-clean"}),
        ("Savmarket", "Barrister", set()),
        ("", "", set()),
    ],
)
def test_what_is_known_of_routers(vendor: str, name: str, known: set[str]) -> None:
    assert {one.id for one in quirks.of_device(Device(vendor, name, (vendor, name)))} == known


def test_every_quirk_has_a_name_and_a_source() -> None:
    assert len({one.id for one in quirks.QUIRKS}) == len(quirks.QUIRKS)
    assert all(one.source and one.does and one.names for one in quirks.QUIRKS)


def test_the_page_of_routers_is_made_of_the_table() -> None:
    page = Path(__file__).parents[2] / "docs" / "routers.md"
    assert quirks.as_markdown() in page.read_text()


# --- terminals ---


@pytest.mark.parametrize(
    ("term", "lang", "colour"),
    [("xterm", "C.UTF-8", True), ("dumb", "C", False), ("xterm", "NO_COLOR", False)],
)
def test_on_a_terminal(environ: dict[str, str], term: str, lang: str, colour: bool) -> None:
    """One that is narrow, too."""
    main, other = pty.openpty()
    settings = {**environ, "TERM": term, "LC_ALL": lang, "COLUMNS": "20"}
    settings.pop("NO_COLOR", None)
    if lang == "NO_COLOR":
        settings |= {"NO_COLOR": "1", "LC_ALL": "C"}
    command = ["unshare", "--net", NATSUP, "doctor"]
    with subprocess.Popen(command, stdout=other, stderr=other, env=settings) as process:
        os.close(other)
        shown = b""
        while True:
            try:
                data = os.read(main, 65536)
            except OSError:  # EIO: the other end is gone
                break
            shown += data
    os.close(main)
    assert process.returncode == 1
    assert (b"\x1b[31mproblem" in shown) is colour
    assert (b"\x1b" in shown) is colour
    text = shown.decode("utf-8" if colour else "ascii")
    assert "there is no default route" in " ".join(text.split())
    assert ("→" in text) is colour
