"""nginx, whose workers have a socket each of the same port, and which is told of another one."""

import signal
from pathlib import Path

from tests.lab.lab import LAN1, Lab
from tests.programs.running import Running

_CONFIG = """
daemon off;
pid {folder}/pid;
error_log stderr;
user root;
worker_processes {workers};
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        {listen}
        return 200 "{word}";
    }}
}}
"""


def configure(folder: Path, word: str, *listen: str, workers: int = 3) -> None:
    lines = " ".join(f"listen {port};" for port in listen)
    text = _CONFIG.format(folder=folder, word=word, listen=lines, workers=workers)
    (folder / "nginx.conf").write_text(text)


def get(lab: Lab, number: int) -> bytes:
    answer = lab.fetch("tcp", number, b"GET / HTTP/1.0\r\n\r\n") or b""
    return answer.rpartition(b"\r\n\r\n")[2]


def test_workers_with_sockets_of_their_own_and_a_reload(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    folder.mkdir()
    both = ("8080 reuseport", "[::]:8080 ipv6only=on reuseport")
    configure(folder, "first", *both, "8081")
    program = Running(lab, folder, ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")])
    lab.wait_for(lambda: lab.table() == {"tcp/8080": LAN1, "tcp/8081": LAN1})
    lab.wait_for(lambda: get(lab, 8080) == b"first")
    assert get(lab, 8081) == b"first"

    configure(folder, "second", *both, "8082 reuseport")
    program.process.send_signal(signal.SIGHUP)
    lab.wait_for(lambda: get(lab, 8082) == b"second")
    lab.wait_for(lambda: get(lab, 8080) == b"second")
    # The old workers have the old port open until they have ended.
    lab.wait_for(lambda: lab.table() == {"tcp/8080": LAN1, "tcp/8082": LAN1})

    # The same ports, more workers: each new one has new sockets.
    configure(folder, "third", *both, "8082 reuseport", workers=5)
    program.process.send_signal(signal.SIGHUP)
    lab.wait_for(lambda: get(lab, 8080) == b"third")
    assert lab.table() == {"tcp/8080": LAN1, "tcp/8082": LAN1}

    program.kill()
    lab.wait_for(lambda: lab.table() == {})
    assert not lab.reaches(8080)
    assert not lab.reaches(8082)
