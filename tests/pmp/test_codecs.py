"""NAT-PMP and PCP on the wire: vectors by hand from RFC 6886 and RFC 6887, and what hypothesis
makes up."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from natsup.state.model import Port, Protocol
from natsup.upnp.pmp import natpmp, pcp
from natsup.upnp.pmp.answers import (
    Granted,
    Heard,
    Map,
    Query,
    Refusal,
    Refused,
    Step,
    Told,
    Unmap,
)

TCP, UDP = Port(Protocol.TCP, 6881), Port(Protocol.UDP, 6881)
PROOF = bytes(range(12))
CLIENT = "192.168.1.2"

numbers = st.integers(1, 65535)
words = st.integers(0, 2**32 - 1)
ports = st.builds(Port, st.sampled_from(Protocol), numbers)


@pytest.mark.parametrize(
    ("step", "sent"),
    [
        (Query(), "0000"),
        (Map(UDP, 3600), "0001 0000 1ae1 1ae1 00000e10"),
        (Map(TCP, 7200), "0002 0000 1ae1 1ae1 00001c20"),
        (Unmap(TCP), "0002 0000 1ae1 0000 00000000"),
    ],
)
def test_natpmp_requests(step: Step, sent: str) -> None:
    assert natpmp.encode(step) == bytes.fromhex(sent)


@pytest.mark.parametrize(
    ("step", "received", "heard"),
    [
        (Query(), "0080 0000 00000e10 0b162101", Heard(Told("11.22.33.1"), 3600)),
        (Query(), "0080 0000 00000e10 00000000", Heard(Told(None), 3600)),
        (Query(), "0080 0003 00000e10 00000000", Heard(Refused(Refusal.NETWORK), 3600)),
        (Query(), "0080 0002 00000001", Heard(Refused(Refusal.NOT_AUTHORIZED), 1)),
        (Query(), "0080 0001", Heard(Refused(Refusal.VERSION), None)),
        (Query(), "0080 0000", None),
        (Query(), "0000 0000 00000e10 0b162101", None),  # a request
        (Query(), "0081 0000 00000001 1ae1 1ae1 00000e10", None),
        (Map(UDP, 9), "0081 0000 00000001 1ae1 1ae1 00000e10", Heard(Granted(6881, 3600), 1)),
        (Map(UDP, 9), "0081 0000 00000001 1ae1 1ae2 0000003c ff", Heard(Granted(6882, 60), 1)),
        (Map(UDP, 9), "0081 0000 00000001 1ae2 1ae2 00000e10", None),  # another port's
        (Map(TCP, 9), "0081 0000 00000001 1ae1 1ae1 00000e10", None),  # another protocol's
        (Map(TCP, 9), "0082 0004 00000001", Heard(Refused(Refusal.RESOURCES), 1)),
        (Map(TCP, 9), "0082 0063 00000001 1ae1 0000 00000000", Heard(Refused(Refusal.OTHER), 1)),
        (Map(TCP, 9), "0082 0000 00000001", None),
        (Map(TCP, 9), "0282 0000 00000001 1ae1 1ae1 00000e10", None),
        (Unmap(TCP), "0082 0000 00000001 1ae1 0000 00000000", Heard(Granted(0, 0), 1)),
    ],
)
def test_natpmp_answers(step: Step, received: str, heard: Heard | None) -> None:
    assert natpmp.read(bytes.fromhex(received), step) == heard


OWN = "00000000000000000000ffff c0a80102"
NOWHERE = "00000000000000000000ffff 00000000"
OUTSIDE = "00000000000000000000ffff 0b162101"
NONCE = PROOF.hex()


@pytest.mark.parametrize(
    ("step", "sent"),
    [
        (Query(), f"0200 0000 00000000 {OWN}"),
        (
            Map(TCP, 3600),
            f"0201 0000 00000e10 {OWN} {NONCE} 06 000000 1ae1 1ae1 {NOWHERE}",
        ),
        (
            Map(UDP, 3600, insist=True),
            f"0201 0000 00000e10 {OWN} {NONCE} 11 000000 1ae1 1ae1 {NOWHERE} 02 00 0000",
        ),
        (Unmap(UDP), f"0201 0000 00000000 {OWN} {NONCE} 11 000000 1ae1 0000 {NOWHERE}"),
    ],
)
def test_pcp_requests(step: Step, sent: str) -> None:
    assert pcp.encode(step, client=CLIENT, proof=PROOF) == bytes.fromhex(sent)


REST = "000000000000000000000000"
MAPPED = f"{NONCE} 06 000000 1ae1 1ae1 {OUTSIDE}"


@pytest.mark.parametrize(
    ("step", "received", "heard"),
    [
        (Query(), f"0280 0000 00000000 00000e10 {REST}", Heard(Told(), 3600)),
        (Query(), f"0280 0004 0000001e 00000e10 {REST}", Heard(Refused(Refusal.OPCODE, 30), 3600)),
        (Query(), f"0280 0000 00000000 00000e10 {REST} 00", None),  # no multiple of 4
        (Query(), f"0200 0000 00000000 00000e10 {REST}", None),  # a request
        (Query(), f"0280 0000 00000000 00000e10 {REST}" + "00" * 1080, None),  # too long
        # NAT-PMP alone, as different routers say it, and a later version of PCP
        (Query(), "0080 0001", Heard(Refused(Refusal.VERSION), None)),
        (Query(), "0080 0001 00000e10", Heard(Refused(Refusal.VERSION), None)),
        (Query(), "0080 0001 00000e10 00000000", Heard(Refused(Refusal.VERSION), None)),
        (Map(TCP, 9), "0081 0001 00000e10", Heard(Refused(Refusal.VERSION), None)),
        (Query(), f"0380 0001 00000000 00000e10 {REST}", Heard(Refused(Refusal.VERSION), None)),
        (Query(), "0080 0000 00000e10 0b162101", None),
        (
            Map(TCP, 9),
            f"0281 0000 00000e10 00000001 {REST} {MAPPED}",
            Heard(Granted(6881, 3600, "11.22.33.1"), 1),
        ),
        (
            Unmap(TCP),
            f"0281 0000 00000000 00000001 {REST} {NONCE} 06 000000 1ae1 0000 {NOWHERE}",
            Heard(Granted(0, 0, None), 1),
        ),
        (
            Map(TCP, 9),
            f"0281 000b 0000001e 00000001 {REST} {MAPPED} 02 00 0000",
            Heard(Refused(Refusal.CANNOT_PROVIDE, 30), 1),
        ),
        (Map(TCP, 9), f"0281 0000 00000e10 00000001 {REST}", None),
        (
            Map(TCP, 9),
            f"0281 0002 0000001e 00000001 {REST}",
            Heard(Refused(Refusal.NOT_AUTHORIZED, 30), 1),
        ),
        (Map(UDP, 9), f"0281 0000 00000e10 00000001 {REST} {MAPPED}", None),
        (Map(Port(Protocol.TCP, 1), 9), f"0281 0000 00000e10 00000001 {REST} {MAPPED}", None),
        (
            Map(TCP, 9),
            f"0281 0000 00000e10 00000001 {REST} ff{NONCE[2:]} 06 000000 1ae1 1ae1 {OUTSIDE}",
            None,  # another nonce
        ),
    ],
)
def test_pcp_answers(step: Step, received: str, heard: Heard | None) -> None:
    assert pcp.read(bytes.fromhex(received), step, proof=PROOF) == heard


def test_nonces_are_the_same_tomorrow_and_differ_by_what_they_prove() -> None:
    one = pcp.nonce(b"secret", "192.168.1.1", CLIENT, TCP)
    assert one == pcp.nonce(b"secret", "192.168.1.1", CLIENT, TCP)
    assert len(one) == 12
    others = {
        pcp.nonce(b"other", "192.168.1.1", CLIENT, TCP),
        pcp.nonce(b"secret", "192.168.1.9", CLIENT, TCP),
        pcp.nonce(b"secret", "192.168.1.1", "192.168.1.3", TCP),
        pcp.nonce(b"secret", "192.168.1.1", CLIENT, UDP),
    }
    assert len(others) == 4
    assert one not in others


@given(
    st.one_of(
        st.builds(natpmp.Response, st.integers(0, 2), st.integers(1, 65535)),
        st.builds(natpmp.Response, st.integers(0, 2), st.integers(1, 65535), words),
        st.builds(
            natpmp.Response, st.just(0), st.integers(0, 65535), words, st.builds(IPv4Address, words)
        ),
        st.builds(
            natpmp.Response,
            st.integers(1, 2),
            st.integers(0, 65535),
            words,
            st.none(),
            numbers,
            numbers,
            words,
        ),
    )
)
def test_natpmp_answers_there_and_back(said: natpmp.Response) -> None:
    assert natpmp.decode(natpmp.encode_response(said)) == said


steps = st.one_of(
    st.builds(Query), st.builds(Unmap, ports), st.builds(Map, ports, st.integers(1, 2**32 - 1))
)
mappings = st.builds(
    pcp.Mapping,
    st.binary(min_size=12, max_size=12),
    st.integers(0, 255),
    numbers,
    numbers,
    st.builds(IPv6Address, st.integers(0, 2**128 - 1)),
)


@given(
    st.one_of(
        st.builds(pcp.Response, st.just(1), st.integers(0, 255), words, words, mappings),
        st.builds(pcp.Response, st.just(0), st.integers(0, 255), words, words),
        st.builds(pcp.Response, st.just(1), st.integers(1, 255), words, words),
    )
)
def test_pcp_answers_there_and_back(said: pcp.Response) -> None:
    assert pcp.decode(pcp.encode_response(said)) == said


@given(steps, st.booleans())
def test_pcp_requests_there_and_back(step: Step, insist: bool) -> None:
    if isinstance(step, Map):
        step = Map(step.port, step.lifetime, insist)
    asked = pcp.decode_request(pcp.encode(step, client=CLIENT, proof=PROOF))
    assert asked is not None
    assert asked.client.ipv4_mapped == IPv4Address(CLIENT)
    assert asked.lifetime == (step.lifetime if isinstance(step, Map) else 0)
    assert (asked.mapping is None) is isinstance(step, Query)
    if asked.mapping is not None and not isinstance(step, Query):
        assert asked.mapping.nonce == PROOF
        assert asked.mapping.internal_port == step.port.number
        assert asked.insist is (isinstance(step, Map) and insist)


heads = st.sampled_from([bytes((v, o)) for v in (0, 1, 2, 3) for o in (0, 1, 128, 129, 130, 255)])


@given(st.builds(bytes.__add__, heads, st.binary(max_size=80)) | st.binary(max_size=1200), steps)
def test_garbage_is_nothing_or_an_answer(data: bytes, step: Step) -> None:
    for heard in (natpmp.read(data, step), pcp.read(data, step, proof=PROOF)):
        assert heard is None or isinstance(heard, Heard)
    pcp.decode_request(data)
