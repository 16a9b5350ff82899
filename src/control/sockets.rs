//! Listening sockets of binds: handed over by the service manager if available, else opened here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::control::workers::{Copies, copies};
use crate::edge::SocketId;
use crate::net::ServerSocket;
use crate::snapshot::{Bind, BindKey, Snapshot, Transport};
use crate::systemd::{ForAnother, Inherited};

/// The accept backlog, large enough for connections during a restart. The kernel caps it at
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// All open sockets, and the handed-over ones that no bind uses. A load works on a clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Sockets {
    inherited: Arc<[Inherited]>,
    /// Set if the sockets were handed over to another process instead.
    for_another: Option<ForAnother>,
    open: BTreeMap<BindKey, Vec<OpenSocket>>,
    next: u64,
}

/// An open socket that serves a bind.
#[derive(Clone, Copy, Debug)]
struct OpenSocket {
    id: SocketId,
    /// Its index among the handed-over sockets; `None` if it was opened here.
    handed: Option<usize>,
}

/// Sockets for the next snapshot. They are bound, so that no other process can take the ports, but
/// not listening, so that no client can connect before it is certain that they will be served.
#[derive(Debug, Default)]
pub(super) struct BoundSockets {
    new: Vec<(BindKey, SocketId, ServerSocket)>,
    gone: Vec<SocketId>,
    warnings: Vec<String>,
    open: BTreeMap<BindKey, Vec<OpenSocket>>,
    next: u64,
}

/// Sockets for the next snapshot, after every step that can fail.
#[derive(Debug)]
pub(super) struct ReadySockets {
    /// New sockets to accept from, with a copy for each worker.
    pub new: Vec<(BindKey, SocketId, Copies)>,
    /// Sockets that are no longer served.
    pub gone: Vec<SocketId>,
    /// Warnings about handed-over sockets that are unused, or not used as their names suggest.
    pub warnings: Vec<String>,
    open: BTreeMap<BindKey, Vec<OpenSocket>>,
    next: u64,
}

/// Reasons why bound sockets cannot be served.
#[derive(Debug)]
pub(super) enum CannotListen {
    Bind(CannotBind),
    /// No file descriptor is free for the copy of a worker.
    Copies(io::Error),
}

/// The failure to open a socket for a bind.
#[derive(Debug, thiserror::Error)]
#[error("port {} cannot be listened on: {source}{hint}", key.port)]
pub(crate) struct CannotBind {
    pub(super) key: BindKey,
    /// True if this gateway already serves the port on another address. A load without this bind
    /// would close that socket and gain nothing.
    pub(super) ours: bool,
    hint: Cow<'static, str>,
    source: io::Error,
}

impl Sockets {
    /// Takes the sockets that the service manager handed over, to us or to another process.
    pub(super) fn new(inherited: Vec<Inherited>, for_another: Option<ForAnother>) -> Self {
        Self { inherited: inherited.into(), for_another, ..Self::default() }
    }

    /// Finds or binds a socket for every bind of `next`. Nothing changes yet: sockets that were
    /// opened here are closed again if the result is dropped.
    ///
    /// A bind is served by the handed-over sockets that have the name of one of its listeners,
    /// whatever port either has; else by those bound to the listener's port; else by a new socket.
    /// A bind keeps the sockets that serve it already. Each socket serves one bind: the first that
    /// matches.
    ///
    /// # Errors
    ///
    /// Returns every bind that has no socket, with the cause.
    pub(super) fn prepare(&self, next: &Snapshot) -> Result<BoundSockets, Vec<CannotBind>> {
        let mut prepared = BoundSockets { next: self.next, ..BoundSockets::default() };
        let mut failed = Vec::new();
        let mut fail = |bind: &Bind, source: io::Error| {
            let ours = self.open.keys().any(|key| overlap(*key, bind.key));
            let hint = if ours { OURS.into() } else { self.hint(&source, bind.key.transport) };
            failed.push(CannotBind { key: bind.key, ours, hint, source });
        };
        for bind in &next.binds {
            if let Some(sockets) = self.open.get(&bind.key) {
                prepared.open.insert(bind.key, sockets.clone());
            }
        }
        for bind in &next.binds {
            self.hand_over(bind, |one| is_named_for(one, bind), &mut prepared)
                .unwrap_or_else(|error| fail(bind, error));
        }
        for bind in &next.binds {
            if !prepared.open.contains_key(&bind.key) {
                self.hand_over(bind, |one| is_on_port_of(one, bind), &mut prepared)
                    .unwrap_or_else(|error| fail(bind, error));
            }
        }
        for bind in &next.binds {
            if !prepared.open.contains_key(&bind.key) {
                match prepared.make_exclusive(bind.key).and_then(|()| open_for(bind)) {
                    Ok(socket) => prepared.add(bind.key, None, socket),
                    Err(error) => fail(bind, error),
                }
            }
        }
        if !failed.is_empty() {
            return Err(failed);
        }
        prepared.gone = self
            .open
            .iter()
            .filter(|(key, _)| !prepared.open.contains_key(key))
            .flat_map(|(_, sockets)| sockets.iter().map(|socket| socket.id))
            .collect();
        prepared.warnings = self.warnings(next, &prepared);
        Ok(prepared)
    }

    /// The names of the sockets that the service manager has handed over.
    pub(super) fn handed_over(&self) -> Vec<String> {
        self.inherited.iter().filter_map(|one| one.name.as_deref()).map(str::to_owned).collect()
    }

    /// Makes the new sockets listen, and copies them for `workers`. They are served only after
    /// [`commit`](Self::commit).
    ///
    /// # Errors
    ///
    /// Fails if another process has begun to listen on a port since it was bound, or if no file
    /// descriptor is free.
    pub(super) fn listen(
        &self,
        bound: BoundSockets,
        workers: usize,
    ) -> Result<ReadySockets, CannotListen> {
        let BoundSockets { new, gone, warnings, open, next } = bound;
        let mut copied = Vec::with_capacity(new.len());
        for (key, id, socket) in new {
            if let Err(source) = listen(&socket) {
                let hint = self.hint(&source, key.transport);
                return Err(CannotListen::Bind(CannotBind { key, ours: false, hint, source }));
            }
            copied.push((key, id, copies(workers, id, &socket).map_err(CannotListen::Copies)?));
        }
        Ok(ReadySockets { new: copied, gone, warnings, open, next })
    }

    /// Makes these sockets the open ones. The caller has to accept from the new ones and close the
    /// old ones.
    pub(super) fn commit(&mut self, ready: &mut ReadySockets) {
        self.open = std::mem::take(&mut ready.open);
        self.next = ready.next;
    }

    /// Gives `bind` every handed-over socket that `fits` and does not serve another bind.
    fn hand_over(
        &self,
        bind: &Bind,
        fits: impl Fn(&Inherited) -> bool,
        prepared: &mut BoundSockets,
    ) -> io::Result<()> {
        for (place, one) in self.inherited.iter().enumerate() {
            if fits(one) && prepared.server_of(place).is_none() {
                prepared.add(bind.key, Some(place), one.socket.try_clone()?);
            }
        }
        Ok(())
    }

    /// Returns advice for the error message.
    fn hint(&self, error: &io::Error, transport: Transport) -> Cow<'static, str> {
        match &self.for_another {
            Some(other) if error.kind() == io::ErrorKind::AddrInUse => format!("; {other}").into(),
            _ => hint(error, transport).into(),
        }
    }

    fn warnings(&self, next: &Snapshot, prepared: &BoundSockets) -> Vec<String> {
        let mut warnings = Vec::new();
        for (place, one) in self.inherited.iter().enumerate() {
            let socket = match &one.name {
                Some(name) => format!("socket `{name}` ({}) handed over", one.address),
                None => format!("socket without a name ({}) handed over", one.address),
            };
            let Some(server) = prepared.server_of(place) else {
                let names = next.binds.iter().flat_map(|bind| {
                    bind.names.iter().map(|name| format!("`{name}` (port {})", bind.key.port))
                });
                let names: Vec<_> = names.collect();
                let listeners = match &*names {
                    [] => "there is no listener".into(),
                    names => format!("the listeners are {}", names.join(", ")),
                };
                warnings.push(format!(
                    "{socket} fits no listener by name or by port: whoever connects to it waits \
                     in vain; {listeners}"
                ));
                continue;
            };
            let others = next.binds.iter().filter(|bind| bind.key != server);
            for other in others.filter(|bind| is_named_for(one, bind)) {
                warnings.push(format!(
                    "{socket} serves port {} of the listeners of its name; port {} is served on a \
                     socket of its own; give one of the listeners another name",
                    server.port, other.key.port
                ));
            }
        }
        warnings
    }
}

impl BoundSockets {
    fn add(&mut self, bind: BindKey, handed: Option<usize>, socket: ServerSocket) {
        self.next += 1;
        let id = SocketId(self.next);
        self.open.entry(bind).or_default().push(OpenSocket { id, handed });
        self.new.push((bind, id, socket));
    }

    /// Makes the new sockets listen that may collide with `bind`: two sockets that are only bound
    /// could share a port, but a listening one has it exclusively.
    fn make_exclusive(&self, bind: BindKey) -> io::Result<()> {
        let mut others = self.new.iter().filter(|(key, ..)| overlap(*key, bind));
        others.try_for_each(|(_, _, socket)| listen(socket))
    }

    /// Returns the bind that the handed-over socket with index `place` serves.
    fn server_of(&self, place: usize) -> Option<BindKey> {
        let serves = |sockets: &[OpenSocket]| sockets.iter().any(|one| one.handed == Some(place));
        self.open.iter().find(|(_, sockets)| serves(sockets)).map(|(key, _)| *key)
    }
}

fn is_named_for(one: &Inherited, bind: &Bind) -> bool {
    is_of_kind(one, bind)
        && one.name.as_ref().is_some_and(|name| bind.names.iter().any(|own| **own == **name))
}

fn is_of_kind(one: &Inherited, bind: &Bind) -> bool {
    one.socket.is_udp() == (bind.key.transport == Transport::Udp)
}

fn is_on_port_of(one: &Inherited, bind: &Bind) -> bool {
    is_of_kind(one, bind)
        && one.address.port() == bind.key.port
        && bind.key.address.is_none_or(|ip| ip == one.address.ip().to_canonical())
}

/// Opens a new socket.
fn open_for(bind: &Bind) -> io::Result<ServerSocket> {
    let open = |address: IpAddr| {
        let address = SocketAddr::new(address, bind.key.port);
        match bind.key.transport {
            Transport::Tcp => stream(address).map(ServerSocket::Tcp),
            Transport::Udp => datagrams(address).map(ServerSocket::Udp),
        }
    };
    match bind.key.address {
        Some(address) => open(address),
        // One dual-stack socket for both families, or IPv4 alone on a host without IPv6.
        None => match open(Ipv6Addr::UNSPECIFIED.into()) {
            Err(error) if no_ipv6(&error) => open(Ipv4Addr::UNSPECIFIED.into()),
            opened => opened,
        },
    }
}

/// Opens a non-blocking UDP socket. `SO_REUSEADDR` is not set, because for UDP it would let another
/// process take the port.
fn datagrams(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Opens a non-blocking, bound TCP socket that does not listen yet.
fn stream(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of the previous process may still be closing on the same port.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Makes a bound socket listen. A handed-over socket listens already, and a UDP socket never does.
fn listen(socket: &ServerSocket) -> io::Result<()> {
    match socket {
        ServerSocket::Tcp(socket) => {
            let socket = SockRef::from(socket);
            if socket.is_listener()? { Ok(()) } else { socket.listen(BACKLOG) }
        }
        ServerSocket::Udp(_) => Ok(()),
    }
}

/// Returns the reason why `address` cannot be listened on; `None` if a trial bind of an ephemeral
/// port succeeds.
pub(super) fn unusable_address(address: IpAddr) -> Option<String> {
    TcpListener::bind(SocketAddr::new(address, 0)).err().map(|error| error.to_string())
}

fn no_ipv6(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let codes = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL, Errno::EPROTONOSUPPORT];
    codes.iter().any(|code| error.raw_os_error() == Some(*code as i32))
}

/// True for two sockets on the same port if one of them is bound to all addresses.
fn overlap(a: BindKey, b: BindKey) -> bool {
    let is_every = |key: BindKey| key.address.is_none_or(|address| address.is_unspecified());
    (a.port, a.transport) == (b.port, b.transport) && (is_every(a) || is_every(b))
}

/// Advice for a port that this gateway itself has open, on an overlapping address.
const OURS: &str =
    "; this gateway has it on other addresses, and can change them in a restart alone";

/// Returns advice for the error message.
fn hint(error: &io::Error, transport: Transport) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse if transport == Transport::Udp => {
            "; see who has it with `ss -lunp`, or hand the socket over"
        }
        io::ErrorKind::AddrInUse => "; see who has it with `ss -ltnp`, or hand the socket over",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 come from the socket units, or need CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this host has that address",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::HostTable;

    fn bind(address: Option<IpAddr>, port: u16, name: &str) -> Arc<Bind> {
        Arc::new(Bind {
            key: BindKey { address, port, transport: Transport::Tcp },
            counts: Arc::default(),
            names: vec![name.into()],
            tls: false,
            https: false,
            forwards_tls: false,
            listeners: HostTable::default(),
            limits: Arc::default(),
            policy: None,
            has_policies: false,
            proxy_header: None,
            connection_limit: None,
            keep_alive: None,
            access_log: None,
        })
    }

    fn snapshot(binds: &[(u16, &str)]) -> Snapshot {
        let binds = binds.iter().map(|(port, name)| bind(None, *port, name)).collect();
        Snapshot { binds, ..Snapshot::default() }
    }

    fn handed(name: &str) -> Inherited {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Inherited { name: Some(name.into()), socket: ServerSocket::Tcp(listener), address }
    }

    #[test]
    fn a_name_counts_before_a_port_and_both_before_binding() {
        let (http, other) = (handed("http"), handed("other"));
        let (http_at, other_at) = (http.address, other.address);
        let sockets = Sockets::new(vec![http, other], None);
        // `http` is matched by name although its port differs, `https` by the port of the other one.
        let next = snapshot(&[(8080, "http"), (other_at.port(), "https")]);

        let prepared = sockets.prepare(&next).unwrap();

        let at = |index: usize| {
            let (key, _, listener) = &prepared.new[index];
            (key.port, listener.local_addr().unwrap())
        };
        assert_eq!(at(0), (8080, http_at));
        assert_eq!(at(1), (other_at.port(), other_at));
    }

    #[test]
    fn a_socket_serves_one_bind_and_the_others_of_its_name_are_told() {
        let (http, spare) = (handed("http"), handed("spare"));
        let (http_at, spare_at) = (http.address, spare.address);
        let mut sockets = Sockets::new(vec![http, spare], None);
        // Both binds have a listener `http`; the second uses the socket with its port.
        let mut first = snapshot(&[(80, "http"), (spare_at.port(), "http")]);
        first.binds.sort_by_key(|bind| bind.key);
        let prepared = sockets.prepare(&first).unwrap();
        let at: Vec<_> = prepared
            .new
            .iter()
            .map(|(key, _, listener)| (key.port, listener.local_addr().unwrap()))
            .collect();
        assert_eq!(at, [(80, http_at), (spare_at.port(), spare_at)]);
        let [warning] = &*prepared.warnings else { panic!("{:?}", prepared.warnings) };
        let want = format!("socket `http` ({http_at}) handed over serves port 80 of the listeners");
        assert!(warning.starts_with(&want), "{warning}");
        let mut ready = sockets.listen(prepared, 1).unwrap();
        sockets.commit(&mut ready);

        // A new bind that sorts first takes no socket from the bind that uses it.
        let second = snapshot(&[(0, "http"), (80, "http")]);
        let prepared = sockets.prepare(&second).unwrap();
        let [(key, _, listener)] = &*prepared.new else { panic!("{:?}", prepared.new) };
        assert_eq!(key.port, 0);
        assert_ne!(listener.local_addr().unwrap(), http_at);
    }

    #[test]
    fn a_socket_that_waits_in_vain_is_told_and_kept() {
        let (http, lost) = (handed("http"), handed("web"));
        let lost_at = lost.address;
        let mut sockets = Sockets::new(vec![http, lost], None);
        let prepared = sockets.prepare(&snapshot(&[(8080, "http")])).unwrap();
        assert_eq!(
            prepared.warnings,
            [format!(
                "socket `web` ({lost_at}) handed over fits no listener by name or by port: \
                 whoever connects to it waits in vain; the listeners are `http` (port 8080)"
            )]
        );
        let mut ready = sockets.listen(prepared, 1).unwrap();
        sockets.commit(&mut ready);

        let next = snapshot(&[(8080, "http"), (8081, "web")]);
        let prepared = sockets.prepare(&next).unwrap();
        assert_eq!(prepared.warnings, [""; 0]);
        let [(key, _, listener)] = &*prepared.new else { panic!("{:?}", prepared.new) };
        assert_eq!((key.port, listener.local_addr().unwrap()), (8081, lost_at));
    }

    #[test]
    fn what_stays_is_kept_and_what_goes_is_closed() {
        let mut sockets = Sockets::new(vec![handed("http"), handed("https")], None);
        let first = sockets.prepare(&snapshot(&[(8080, "http"), (8443, "https")])).unwrap();
        let https = first.new[1].1;
        let mut ready = sockets.listen(first, 1).unwrap();
        sockets.commit(&mut ready);

        let second = sockets.prepare(&snapshot(&[(8080, "http")])).unwrap();

        assert!(second.new.is_empty());
        assert_eq!(second.gone, [https]);
    }

    #[test]
    fn a_new_socket_refuses_clients_until_it_is_to_be_served() {
        let sockets = Sockets::default();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let bound = sockets.prepare(&snapshot(&[(port, "http")])).unwrap();
        let connect = || std::net::TcpStream::connect(("127.0.0.1", port));
        assert_eq!(connect().unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let ready = sockets.listen(bound, 2).unwrap();
        assert_eq!(ready.new[0].2.len(), 2, "a copy for each worker");
        connect().unwrap();
    }

    #[test]
    fn of_two_binds_that_collide_one_fails() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let local = bind(Some(Ipv4Addr::LOCALHOST.into()), port, "local");
        let binds = vec![bind(None, port, "http"), local];
        let next = Snapshot { binds, ..Snapshot::default() };
        let failed = Sockets::default().prepare(&next).unwrap_err();
        assert_eq!(failed.len(), 1, "{failed:?}");
    }

    #[test]
    fn a_port_in_use_fails_with_what_to_do() {
        let taken = TcpListener::bind("[::]:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let failed = Sockets::default().prepare(&snapshot(&[(port, "http")])).unwrap_err();
        let message = failed[0].to_string();
        assert!(message.contains(&port.to_string()) && message.contains("ss -ltnp"), "{message}");
    }
}
