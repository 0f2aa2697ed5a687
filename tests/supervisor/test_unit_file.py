"""systemd's unit files, read."""

import pytest

from natsup.supervisor.unit_file import BadUnit, Command, commands_of, quoted, read


def test_lines_that_are_continued_and_comments() -> None:
    service = read(
        "# not this\n[Unit]\nUser=x\n[Service]\n  User = a b  \n; nor this\n"
        "ExecStart=/bin/a \\\n   b \\\n# nor this\n;\n  c\\\\\nGroup=g\\\n\nnonsense\n"
        "[Install]\nUser=y\n"
    )
    assert [name for name, _ in service.settings] == ["User", "ExecStart", "Group"]
    assert service.last("User") == "a b"
    assert service.last("ExecStart").split() == ["/bin/a", "b", "c\\\\"]


def test_lists_begin_anew_with_an_empty_line() -> None:
    first, second = "ExecStart=/a\nUser=x\n", "ExecStart=\nExecStart=/b\nUser=\n"
    service = read(f"[Service]\n{first}\n[Service]\n{second}")
    assert service.all("ExecStart") == ["/b"]
    assert service.last("User") == ""
    assert service.commands() == [Command("", ("/b",))]


@pytest.mark.parametrize(
    ("line", "commands"),
    [
        ("/bin/a", [Command("", ("/bin/a",))]),
        ("-@:/bin/a b c", [Command("-@:", ("/bin/a", "b", "c"))]),
        ("!!/bin/a", [Command("!!", ("/bin/a",))]),
        ("|/bin/a", [Command("|", ("/bin/a",))]),
        ("+'/bin/a b' \"c 'd\" e'f g'h", [Command("+", ("'/bin/a b'", '"c \'d"', "e'f g'h"))]),
        ('"-/bin/a b"', [Command("-", ('"/bin/a b"',))]),
        (
            r"/a b\ c \"d \x20 %i $A ${B}",
            [Command("", ("/a", r"b\ c", r"\"d", r"\x20", "%i", "$A", "${B}"))],
        ),
        ("/a b ; -/c d", [Command("", ("/a", "b")), Command("-", ("/c", "d"))]),
        (r"/a b \; ';' c; ;", [Command("", ("/a", "b", r"\;", "';'", "c;"))]),
        ("", []),
    ],
)
def test_commands(line: str, commands: list[Command]) -> None:
    assert commands_of(line) == commands


@pytest.mark.parametrize(
    ("line", "why"),
    [("/a 'b", "a quote without an end"), ("-", "names no command"), ("@/a", "to be its name")],
)
def test_lines_that_systemd_refuses(line: str, why: str) -> None:
    with pytest.raises(BadUnit, match=why):
        commands_of(line)


def test_words_of_a_list() -> None:
    service = read("[Service]\nA=x\nA=\nA=a 'b c'\nA=it's\nA=d\\ e \"f'\\\"g\" %i\n")
    assert service.words("A") == ["a", "b c", "d e", "f'\"g", "%i"]


def test_words_are_quoted() -> None:
    words = ["a", "a b", "100%", "$x", "", 'q"', "b\\", "a;b", "#"]
    assert [quoted(word) for word in words] == [
        "a",
        '"a b"',
        "100%%",
        "$$x",
        '""',
        '"q\\""',
        '"b\\\\"',
        '"a;b"',
        '"#"',
    ]
    assert quoted("$x", expands=False) == "$x"
