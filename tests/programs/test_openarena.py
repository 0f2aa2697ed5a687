"""The paper's second test: OpenArena's dedicated servers, on one host behind one router.

Of Debian's packages tests/run unpacks what a server needs to serve one map, which is a tenth of
what installing them would bring.
"""

from pathlib import Path

from tests.lab.lab import LAN1, LAN2, Lab
from tests.programs.running import Running, unconfined

_DATA = Path(__file__).with_name(".openarena") / "usr/lib/openarena-server"


def start(lab: Lab, folder: Path, name: str) -> Running:
    home = folder / name
    (home / "baseoa").mkdir(parents=True)
    (home / "baseoa" / "default.cfg").write_text("// Debian's is in the packages left out\n")
    settings = {
        "com_basegame": "baseoa",
        "com_legacyprotocol": 71,
        "com_protocol": 71,
        "fs_basepath": _DATA,
        "fs_homepath": home,
        "dedicated": 1,
        "ttycon": 0,
        "vm_game": 0,  # the game's code from the package, not from the data
        "sv_pure": 0,
        "sv_hostname": name,
        "bot_enable": 0,
    }
    words = [word for item in settings.items() for word in ("+set", *map(str, item))]
    engine = unconfined("/usr/lib/ioquake3/ioq3ded", home)
    return Running(lab, home, [engine, *words, "+map", "oa_dm1"])


def info(lab: Lab, number: int) -> bytes:
    """What the server behind the router's port tells a player on the Internet of itself."""
    answer = lab.fetch("udp", number, b"\xff\xff\xff\xffgetinfo xyz\n") or b""
    return answer if b"infoResponse" in answer else b""


def test_two_servers_share_a_router(lab: Lab, tmp_path: Path) -> None:
    first = start(lab, tmp_path, "first")
    lab.wait_for(lambda: b"\\hostname\\first\\" in info(lab, 27960))
    second = start(lab, tmp_path, "second")
    lab.wait_for(lambda: b"\\hostname\\second\\" in info(lab, 27961))
    assert b"\\hostname\\first\\" in info(lab, 27960)
    assert lab.table() == {"udp/27960": LAN1, "udp/27961": LAN1}

    first.process.terminate()
    lab.wait_for(lambda: lab.table() == {"udp/27961": LAN1})
    assert b"\\hostname\\second\\" in info(lab, 27961)
    assert info(lab, 27960) == b""
    first.process.wait(20)
    assert "Server Shutdown (Received signal 15)" in first.output()
    second.kill()
    lab.wait_for(lambda: lab.table() == {})


def test_a_server_makes_way_for_another_host(lab: Lab, tmp_path: Path) -> None:
    """27960 is free on this host, and another's on the router."""
    lab.map("lan2", "udp", 27960)
    start(lab, tmp_path, "ours")
    lab.wait_for(lambda: b"\\hostname\\ours\\" in info(lab, 27961))
    assert lab.table() == {"udp/27960": LAN2, "udp/27961": LAN1}
