"""What natsup holds to because anybody may be on the LAN: a list, by number.

Each rule is kept by tests of its own in this folder, whose names begin with the number: `pytest -k
test_4_` runs those of the fourth. Other tests may touch them too.
"""

RULES = {
    1: "A description is read only where plain http, an address in figures and the host that has"
    " answered are one and the same host, which is on this LAN, is not this host, and has said one"
    " place. Answers are heard by the LAN's interface alone.",
    2: "The default gateway is the router, and nobody else is but whom the user names.",
    3: "What a description names is on its own host, or is not there; no redirection is followed.",
    4: "Everything that is read has a cap: bytes, header lines, pieces, tags, services, depth,"
    " descriptions to an answer; and all of a request has one deadline.",
    5: "A document that has a DTD is not read, and nothing that one names is fetched.",
    6: "bind() fails only if the gateway's table leads to another host of this LAN, by"
    " its address.",
    7: "A name in the table is nobody's, and is not looked up.",
    8: "What a router says is not repeated in the log, in a reason, or on a terminal.",
    9: "NAT-PMP and PCP are heard from the router's own address and port; PCP with this host's"
    " nonce; only what was asked for counts as granted; an announcement is a reason to ask.",
    10: "Signs of a restart are few, however many are sent, and cost little to hear.",
    11: "What is sent to a router has nothing in it that a program or the LAN has chosen.",
}
