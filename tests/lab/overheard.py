"""What the router is asked, heard on its LAN: neither natsup nor the router is asked about it."""

import re
import subprocess
import sys
from pathlib import Path

from tests.lab.lab import Lab

# packet(7): all of IPv4 that comes in, without its Ethernet header.
_SOURCE = """
import select, socket, sys
heard = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
heard.bind(("lan", 0x0800))
print("ready", flush=True)
while True:
    # What has come in until somebody asks is written before the answer.
    ready, _, _ = select.select([heard, sys.stdin], [], [])
    if heard not in ready:
        if not sys.stdin.buffer.raw.read(1):
            break
        print("all", file=sys.stderr, flush=True)
        continue
    packet = heard.recv(65535)
    tcp = packet[(packet[0] & 15) * 4 :]
    if packet[9] == socket.IPPROTO_TCP and tcp[2:4] == (5555).to_bytes(2):
        print(tcp[(tcp[12] >> 4) * 4 :].decode("latin-1"), end="", flush=True)
"""
_HEAD = re.compile(r"(?:GET|POST) .*?\r\n\r\n", re.DOTALL)
_LENGTH = re.compile(r"^Content-Length: (\d+)\r$", re.MULTILINE | re.IGNORECASE)
_PORT = re.compile(r"<NewExternalPort>(\d+)</NewExternalPort>\s*<NewProtocol>(\w+)</NewProtocol>")


class Overheard:
    """Listens from its making to the end of the lab."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._path = folder / "overheard"
        with self._path.open("wb") as file:
            command = [sys.executable, "-c", _SOURCE]
            pipe = subprocess.PIPE
            self._process = lab.popen("router", command, stdout=file, stdin=pipe, stderr=pipe)
        lab.wait_for(lambda: self._path.read_text().startswith("ready"))

    def requests(self) -> list[str]:
        """Every request so far that was heard to its end, word for word."""
        text = self._all().removeprefix("ready\n")
        found = []
        while (match := _HEAD.match(text)) is not None:
            length = _LENGTH.search(match[0])
            end = match.end() + (int(length[1]) if length else 0)
            if end > len(text):
                break
            found.append(text[:end])
            text = text[end:]
        return found

    def ports(self) -> list[str]:
        """The port of each question and each order so far: ``tcp/6881``. In their order."""
        found = _PORT.findall(self._all())
        return [f"{protocol.lower()}/{number}" for number, protocol in found]

    def _all(self) -> str:
        """Everything that has come in until now."""
        assert self._process.stdin is not None
        assert self._process.stderr is not None
        self._process.stdin.write(b"?")
        self._process.stdin.flush()
        assert self._process.stderr.readline() == b"all\n"
        return self._path.read_bytes().decode("latin-1")
