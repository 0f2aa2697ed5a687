"""What a router may do otherwise than it should: one switch each, by name.

They go together in any number, and may be set while the gateway runs. All off, it is a good router.
Actions are named as in UPnP; ``"GET"`` is the reading of a document, ``"*"`` is everything.
"""

from dataclasses import dataclass, field, fields


@dataclass
class Quirks:
    # Of "upnp", "natpmp" and "pcp". Whether it listens to the last two at all is settled when it
    # starts.
    speaks: tuple[str, ...] = ("upnp",)

    # --- the table ---

    # Action → the code that it is always refused with. Text is sent as it is.
    faults: dict[str, int | str] = field(default_factory=dict)
    # At the next AddPortMapping somebody else is quicker: (address, internal port)
    taken_meanwhile: tuple[str, str] | None = None
    conflict: int = 718  # what is said of a port that another host has
    absent: int = 714  # what is said of a port that nobody has
    trusts: str | None = None  # maps to this address only, whoever asks; None: to the one that asks
    untrusted: int = 606  # what is said to all others
    overwrites: bool = False  # lets any host take any port
    lets_remove: bool = False  # lets any host remove any mapping
    one_internal_port: bool = False  # a mapping is not led to another internal port: a conflict
    refuses_renewal: int | None = None  # the code that a second AddPortMapping gets
    forgets: bool = False  # says that it has added, and has not
    stolen: str | None = None  # adds for this address, whoever is named
    shows_client: str | None = None  # shows this in place of every mapping's address
    shows_enabled: str = "1"
    room: int | None = None  # for so many mappings
    full: int = 728  # what is said then
    longest_name: int | None = None  # of a mapping; a longer one is a failure (501)
    lowest_port: int = 1  # of those that may be mapped
    not_permitted: int = 718  # what is said of the others
    capitals: bool = False  # protocols in small letters are refused
    wan_down: bool = False
    # GetListOfPortMappings, newest first; see LISTS in tests.gateway.soap. None: it has none.
    lists: str | None = None
    list_most: int = 5000  # entries in it, whatever is asked for
    list_hides: tuple[int, ...] = ()  # ports that it does not show
    list_nothing: int | None = 730  # what is said where there is none; None: an empty list

    # --- leases ---

    permanent_only: int | None = None  # the code that any lease is refused with
    leases: tuple[int, ...] | None = None  # all that are taken; others are 402
    stores_lease: int | None = None  # whatever was asked for
    shows_lease: int | None = None  # whatever is left
    renews: bool = True  # a second AddPortMapping prolongs the lease
    dies_after: float | None = None  # seconds after which whatever has a lease ends

    # --- what it says ---

    code_form: str = "{}"  # how a code is written
    fault_form: str = "plain"  # see FAULTS in tests.gateway.soap
    fault_status: int = 500
    success_form: str = "plain"  # see SUCCESSES
    success_status: int = 200
    before_body: str = ""
    after_body: str = ""
    external: str = "11.22.33.1"
    connected: dict[str, str] = field(default_factory=dict)  # path → its NewConnectionStatus
    externals: dict[str, str] = field(default_factory=dict)  # path → its address

    # --- how it says it ---

    framing: str = "length"  # see FRAMINGS in tests.gateway.wire
    manners: dict[str, str] = field(default_factory=dict)  # action → see MANNERS there
    late: dict[str, float] = field(default_factory=dict)  # action → seconds
    login: bool = False  # a page of HTML for an answer to every action, and nothing is done
    redirect: str | None = None  # where every request is sent on to
    exact_header: bool = False  # wants SOAPAction in this spelling, and quoted
    exact_host: bool = False  # wants its own address and port as Host
    exact_service: str | None = None  # wants this serviceType
    one_connection: bool = False  # a second one is closed
    closes: bool = False  # closes after every answer, without saying so

    # --- the search ---

    unicast: bool = True
    multicast: bool = True
    other_port: bool = False  # answers from another port than 1900
    status_line: str = "HTTP/1.1 200 OK"
    more_lines: tuple[str, ...] = ()
    location: str | None = None  # in place of the true one
    times: int = 1  # how often each answer is sent
    search_late: float = 0.0  # seconds
    bootid: int | None = 1
    targets: tuple[str, ...] | None = None  # all that it answers to; None: what it is

    # --- NAT-PMP and PCP ---

    pmp_refuses: int = 0  # the result of every request to map
    pmp_refuses_removal: int = 0
    pmp_off: int = 0  # the result of every request, whatever it is
    pmp_other_port: bool = False  # never gives the port that is asked for
    pmp_lifetime: int | None = None  # granted, whatever was asked for
    pmp_epoch: int = 0  # seconds that its clock tells when it starts
    pmp_pace: float = 1.0  # of its clock
    pmp_keeps_clock: bool = False  # it goes on through a restart
    pmp_downgrade: int = 8  # bytes of "only NAT-PMP is spoken here"
    pmp_loses: int = 0  # so many requests, on their way to it; counted down
    pmp_mute: tuple[str, ...] = ()  # of "query", "map", "unmap": carried out, and not answered
    pmp_times: int = 1  # how often each answer is sent
    pmp_before: tuple[str, ...] = ()  # sent before each answer: see FORGERIES in tests.gateway.pmp
    pcp_heeds_option: bool = True  # PREFER_FAILURE
    pcp_knows_option: bool = True
    pcp_checks_nonce: bool = True  # of what is renewed; that of what is removed always
    pcp_error_lifetime: int = 30  # seconds
    pcp_absent: int = 0  # the result of removing what is not there


NAMES = frozenset(one.name for one in fields(Quirks))
