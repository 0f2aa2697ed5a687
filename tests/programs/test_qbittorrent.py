"""qBittorrent, which binds its port to each address of the host and to none of them all."""

from pathlib import Path

from tests.lab.lab import LAN1, Lab
from tests.lab.overheard import Overheard
from tests.programs import torrent
from tests.programs.running import Running

_CONFIG = """
[LegalNotice]
Accepted=true
[Network]
PortForwardingEnabled=false
[BitTorrent]
Session\\Port=6881
Session\\LSDEnabled=false
[Preferences]
WebUI\\Address=*
WebUI\\Port=8090
WebUI\\UseUPnP=false
Connection\\UPnP=false
"""


def start(lab: Lab, folder: Path, *words: str) -> Running:
    folder.mkdir()
    config = folder / "qBittorrent" / "config" / "qBittorrent.conf"
    config.parent.mkdir(parents=True)
    config.write_text(_CONFIG)
    file = torrent.write(folder / "nowhere.torrent")
    command = ["qbittorrent-nox", f"--profile={folder}", "--skip-dialog=true", file]
    return Running(lab, folder, command, *words)


def listens(lab: Lab) -> bool:
    """Does it listen on the address of lan1 that the router knows?"""
    return f"{LAN1}:6881 " in lab.run("lan1", ["ss", "-ltnH"]).stdout.replace("%eth0", "")


WEB = {"tcp/8090": LAN1}  # its web page, on the wildcard


def test_reachable_by_the_own_address_where_asked_for(lab: Lab, tmp_path: Path) -> None:
    program = start(lab, tmp_path / "qbittorrent", "--own-address")
    lab.wait_for(lambda: lab.table() == {**WEB, "tcp/6881": LAN1, "udp/6881": LAN1})
    lab.wait_for(
        lambda: torrent.HANDSHAKE_ANSWER in (lab.fetch("tcp", 6881, torrent.HANDSHAKE) or b"")
    )
    lab.wait_for(lambda: torrent.SYN_ANSWER in (lab.fetch("udp", 6881, torrent.SYN) or b""))
    program.kill()
    lab.wait_for(lambda: lab.table() == {})


def test_left_alone_otherwise(lab: Lab, tmp_path: Path) -> None:
    overheard = Overheard(lab, tmp_path)
    start(lab, tmp_path / "qbittorrent")
    lab.wait_for(lambda: listens(lab) and lab.table() == WEB)
    assert not lab.reaches(6881)
    assert set(overheard.ports()) == WEB.keys()
