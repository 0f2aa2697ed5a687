"""What `natsup explain` tells: of each thing what it means, why it is so, and what to do. Pure.

The only place where these texts stand: docs/explain.md is made of them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """``names``: what to ask for, the first one for lists. No text has more than one paragraph."""

    names: tuple[str, ...]
    title: str
    reason: str
    remedy: str


TOPICS = (
    Topic(
        ("no-router", "discovery", "upnp"),
        "No router was found, or it does not answer",
        "natsup asks by UPnP, PCP and NAT-PMP, on the interface with the default route. Many"
        " routers come with all three switched off, guest networks and mobile connections have"
        " none, and a firewall on this host may drop the answers, which come as UDP.",
        "Run natsup doctor, which tries each. Look in the router's page for UPnP or NAT-PMP and"
        " switch it on. Where a VPN has the default route, name the interface at home (interface)."
        " Where the search finds nothing and you know the URL of its description, give it"
        " (gateway).",
    ),
    Topic(
        ("conflict", "refused", "taken", "eaddrinuse"),
        "Another host has the port",
        "The router forwards the port to another machine on the LAN already. A bind() that hears so"
        " in time fails with EADDRINUSE, as if the port were taken here; one that does not has the"
        " port on the LAN alone, and natsup status says conflict. natsup log has the first as"
        " refused, the second as conflict.",
        "Let the program use another port, or give several to choose from. Who has it stands in"
        " natsup status, and in the router's page. natsup takes it as soon as it is free.",
    ),
    Topic(
        ("pending",),
        "The router has not been heard of the port yet",
        "bind() waits for the router for a short time only (timeout), and then goes on without it."
        " natsup goes on asking.",
        "Wait, and look at natsup status again. If it stays so, run natsup doctor. Where the router"
        " is slow, a higher timeout lets bind() wait for it.",
    ),
    Topic(
        ("ignored",),
        "The router will not forward the port, and nobody else has it",
        "It said no, or was not there. The program goes on, and can be reached on the LAN as"
        " without natsup. natsup status and natsup log have the router's reason.",
        "Look up that reason here; natsup doctor says what to change on the router.",
    ),
    Topic(
        ("mapped", "put-back"),
        "The router forwards the port to this host",
        "It said so, and it is asked again before the lease ends. Put back: it had lost the port,"
        " in a restart for one, and has it again.",
        "Nothing has to be done. If nobody can connect all the same, see firewall and double-nat.",
    ),
    Topic(
        ("releasing", "removed", "gone"),
        "The port is taken off the router, or has been",
        "No socket has it any more, or its session ends. It is releasing until the router has"
        " answered, then gone: natsup log says removed.",
        "Nothing has to be done. If it should be open still, look whether the program has ended.",
    ),
    Topic(
        ("released",),
        "The port was taken off the router by hand",
        "Somebody typed natsup release, or r in natsup ui. The program has its socket yet, and the"
        " port stays off the router whoever binds it in that session.",
        "natsup retry SESSION PORT, or t in natsup ui, publishes it again; so does a new start.",
    ),
    Topic(
        ("lost",),
        "The router does not forward the port any more",
        "It has restarted, its lease ended, somebody has removed the port in its page, or another"
        " host has taken it. Why stands beside it.",
        "Wait: natsup asks for it again, and natsup log says put back then. What somebody removes"
        " again and again in the router's page stays away.",
    ),
    Topic(
        ("not-renewed",),
        "The router did not renew the port",
        "It was asked to, before the lease ended, and refused or was not there. It may forward the"
        " port still, until the lease does end.",
        "Nothing has to be done at once: natsup goes on asking. If it stays so, run natsup doctor.",
    ),
    Topic(
        ("not-ours", "handed-over"),
        "The port was left on the router, as somebody else has it",
        "Not ours: it belongs to another host by now. Handed over: another session on this host has"
        " the port, and removes it at its own end.",
        "Nothing has to be done.",
    ),
    Topic(
        ("not-removed",),
        "The port could not be taken off the router",
        "The router did not answer. It forwards the port until the lease ends, to a host where"
        " nothing listens.",
        "Wait: it is tried again, and the next session does so, too. natsup clean does it now.",
    ),
    Topic(
        ("left-out",),
        "There was more to tell than natsup keeps",
        "A session had more events at once than the log takes, or than a reader of --events took in"
        " time. How many stands beside it. The ports themselves are not concerned.",
        "Nothing has to be done. natsup status has what holds now.",
    ),
    Topic(
        ("router",),
        "The router's external address, in natsup log",
        "The Internet knows the router by it. It is told when it is first known, and when it"
        " changes, as many providers do every day or at every connection.",
        "Have a name follow it (dynamic DNS), if others are to find you. If it cannot be reached,"
        " see double-nat; where no router is found, see no-router.",
    ),
    Topic(
        ("double-nat", "nat", "cgnat", "carrier-nat", "external-address"),
        "The router's own external address cannot be reached",
        "It is private, or one that the provider shares among customers (100.64.0.0/10): there is"
        " another NAT behind the router, of another router at home or of the provider. The port is"
        " forwarded by the first one only.",
        "With two routers at home, make the inner one a bridge (access point), or forward the port"
        " on the outer one. Of the provider, ask for a public IPv4 address; many give one. IPv6 is"
        " not concerned: a program that binds [::] is reached by it where the router lets it in.",
    ),
    Topic(
        ("hairpin", "loopback"),
        "The external address works from the Internet, and not from the LAN",
        "Many routers do not lead a connection from inside to their own external address back in.",
        "Try from outside, a telephone without Wi-Fi say. On the LAN use this host's own address.",
    ),
    Topic(
        ("firewall",),
        "The router forwards the port, and still nobody can connect",
        "A firewall on this host may drop what comes in; natsup touches none.",
        "Allow the port there: ufw allow 6881, firewall-cmd --add-port=6881/tcp, or a rule of"
        " nftables' own. Check with: nft list ruleset.",
    ),
    Topic(
        ("pinhole", "ipv6"),
        "Pinholes: IPv6 through the router's firewall",
        "With IPv6 nothing is translated, but routers let nothing in by themselves. For programs"
        " that bind [::] natsup asks for a hole for that port, by UPnP IGD v2 or PCP.",
        "Where the router cannot be asked, allow the port to this host in its page, under IPv6"
        " firewall. no-pinholes leaves all that alone.",
    ),
    Topic(
        ("client", "clients", "servers", "resolver"),
        "Clients: programs whose UDP ports are not published",
        "A program that has many UDP sockets for seconds each asks others, as a resolver does, and"
        " offers nothing. It is told by that, or by its name. natsup status lists them.",
        'If it is a server, say so: servers = ["NAME"]. To make one a client: clients = ["NAME"].',
    ),
    Topic(
        ("ports", "deny", "never", "rules"),
        "Which ports are published",
        "Those among ports, from 1024 on, that are neither denied (deny) nor among those that are"
        " never published (never). Ports of local discovery, like SSDP and mDNS, never are. What"
        " stands in never adds up over all files, the environment and the command line, and nothing"
        " lifts it.",
        "natsup config show says what is in force, and from where. natsup log names what was passed"
        " only with verbose.",
    ),
    Topic(
        ("config", "configuration", "settings"),
        "Configuration files",
        "/etc/natsup/config.toml is for everybody, config.toml in $XDG_CONFIG_HOME/natsup"
        " (~/.config/natsup) for one user. Then come the environment (NATSUP_LEASE) and options"
        " (--lease); the later one counts. A mistake in a file stops natsup exec with status 125:"
        " what was meant cannot be known. A file that other users can write is not read, as it"
        " could run commands.",
        "natsup config check names all mistakes, natsup config show what is in force, natsup config"
        " reference all settings. NATSUP_CONFIG=none leaves your own file out.",
    ),
    Topic(
        ("state-folder", "state", "journal", "history"),
        "The state folder",
        "natsup writes down there what it has asked of routers, so that nothing stays behind after"
        " a crash, and its log: $NATSUP_STATE_DIR, $XDG_STATE_HOME/natsup or ~/.local/state/natsup,"
        " for root /var/lib/natsup. Where it cannot be written, ports are published all the same,"
        " but nothing can be cleaned up after natsup has been killed.",
        "Make the folder writable for the user who runs natsup (chown), or give an absolute path in"
        " NATSUP_STATE_DIR.",
    ),
    Topic(
        ("lease",),
        "How long the router keeps a port",
        "natsup asks for an hour at a time (lease), and again at half of it. Should this host"
        " vanish, the router forgets the port then. Some routers grant less, or only leases"
        " without end, which natsup removes at the end.",
        "Nothing has to be done. natsup clean removes what sessions that were killed have left.",
    ),
    Topic(
        ("no-new-privs", "sudo", "setuid"),
        "sudo and other setuid programs do not work below natsup exec",
        "Without root the kernel takes a seccomp filter only from processes that give up gaining"
        " privileges (no_new_privs).",
        "Start natsup itself as root, sudo natsup exec -- COMMAND, or what needs sudo outside it.",
    ),
    Topic(
        ("io-uring", "io_uring"),
        "A program uses io_uring",
        "From Linux 6.11 on it can bind that way, which no seccomp filter sees, so not natsup.",
        "no-io-uring makes io_uring fail for it; most programs then use bind().",
    ),
    Topic(
        ("seccomp", "nested", "container"),
        "Another program has a seccomp listener already",
        "The kernel allows one for a process. Some container engines and sandboxes use theirs.",
        "Start natsup outside of it, or without that program's own notifier.",
    ),
    # What natsup exits with
    Topic(
        ("status-1", "1"),
        "Exit status 1: it works, and there is something to do",
        "natsup doctor found a problem, natsup clean could not remove everything, or natsup config"
        " check found mistakes. From natsup exec it is the program's own.",
        "The lines before it say what.",
    ),
    Topic(
        ("status-70", "70", "crash"),
        "Exit status 70: an error inside natsup",
        "Something happened that its authors have not thought of (EX_SOFTWARE).",
        "A report is in the folder crashes of the state folder; the line that natsup printed names"
        " it. Please send it with an account of what you did. It tells where in natsup it happened,"
        " and the first two words after natsup.",
    ),
    Topic(
        ("status-125", "125"),
        "Exit status 125: natsup could not do it, or does not understand what to do",
        "An option, a variable or a configuration file that will not do, or something that natsup"
        " needs and that is not there. The program was not started.",
        "The line before it says what to give instead. natsup doctor tries what natsup needs.",
    ),
    Topic(
        ("status-126", "126"),
        "Exit status 126: the command was found, and cannot be run",
        "It is not executable, or a folder, or its interpreter is missing.",
        "Look at it with ls -l, and at its first line; chmod +x makes a script executable.",
    ),
    Topic(
        ("status-127", "127"),
        "Exit status 127: the command was not found",
        "There is no such file, or no folder in PATH has it. Shell builtins and aliases are none.",
        "Give its whole path, or install it. For a shell's own words: natsup exec -- sh -c '...'.",
    ),
    Topic(
        ("status-130", "130"),
        "Exit status 130: interrupted",
        "Somebody pressed Ctrl-C, which is signal 2: shells count 128 and the signal's number.",
        "Nothing has to be done. natsup doctor has taken its test mapping back.",
    ),
    # What the kernel says
    Topic(
        ("EACCES", "EPERM"),
        "EACCES, EPERM: not permitted",
        "The kernel, or a security module (AppArmor, SELinux, a container's seccomp profile), does"
        " not let this user do it.",
        "natsup doctor says which permission is missing; README, Use, has the options for Docker.",
    ),
    Topic(
        ("ENOSYS",),
        "ENOSYS from bind(): supervisor and guard have both been killed",
        "Calls that natsup traps have nobody to answer them then, and the kernel leaves no way"
        " back.",
        "Start the program anew. Kill neither of the two processes called natsup.",
    ),
)
