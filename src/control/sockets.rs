//! Which socket serves which bind: those that were handed over first, the rest bound here.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::proxy::SocketId;
use crate::snapshot::{Bind, BindKey, Snapshot};
use crate::systemd::Inherited;

/// Connections that may wait to be accepted: a restart's worth. The kernel caps it at
/// `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Every socket that is listened on, and those that wait for a bind.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    inherited: Vec<Inherited>,
    open: BTreeMap<BindKey, Vec<SocketId>>,
    next: u64,
}

/// Sockets for the next snapshot, before anything is changed.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    /// To be listened on.
    pub new: Vec<(BindKey, SocketId, TcpListener)>,
    /// No longer served.
    pub gone: Vec<SocketId>,
    open: BTreeMap<BindKey, Vec<SocketId>>,
    next: u64,
}

/// A bind without a socket.
#[derive(Debug, thiserror::Error)]
#[error("port {port} cannot be listened on: {source}{hint}")]
pub(crate) struct CannotBind {
    port: u16,
    hint: &'static str,
    source: io::Error,
}

impl Sockets {
    /// Keeps what the service manager handed over.
    pub(super) fn new(inherited: Vec<Inherited>) -> Self {
        Self { inherited, ..Self::default() }
    }

    /// Finds or opens a socket for every bind of `next`. Changes nothing yet: what this process
    /// does not use is closed again if the result is dropped.
    ///
    /// A socket that was handed over under the name of one of a bind's listeners serves it,
    /// whatever port either has; else one that is bound to the listener's port; else a new one.
    ///
    /// # Errors
    ///
    /// Every bind that has no socket, with the cause.
    pub(super) fn prepare(&self, next: &Snapshot) -> Result<Prepared, Vec<CannotBind>> {
        let mut prepared = Prepared { next: self.next, ..Prepared::default() };
        let mut failed = Vec::new();
        for bind in &next.binds {
            if let Some(sockets) = self.open.get(&bind.key) {
                prepared.open.insert(bind.key, sockets.clone());
                continue;
            }
            match self.sockets_for(bind) {
                Ok(listeners) => {
                    for listener in listeners {
                        prepared.next += 1;
                        let socket = SocketId(prepared.next);
                        prepared.open.entry(bind.key).or_default().push(socket);
                        prepared.new.push((bind.key, socket, listener));
                    }
                }
                Err(source) => {
                    let port = bind.key.port;
                    failed.push(CannotBind { port, hint: hint(&source), source });
                }
            }
        }
        if !failed.is_empty() {
            return Err(failed);
        }
        let kept: HashMap<_, _> = prepared.open.keys().map(|key| (*key, ())).collect();
        prepared.gone = self
            .open
            .iter()
            .filter(|(key, _)| !kept.contains_key(key))
            .flat_map(|(_, sockets)| sockets.iter().copied())
            .collect();
        Ok(prepared)
    }

    /// From here on the prepared sockets are the open ones.
    pub(super) fn commit(&mut self, prepared: &mut Prepared) {
        self.open = std::mem::take(&mut prepared.open);
        self.next = prepared.next;
    }

    fn sockets_for(&self, bind: &Bind) -> io::Result<Vec<TcpListener>> {
        let named = |one: &&Inherited| {
            one.name.as_ref().is_some_and(|name| bind.names.iter().any(|own| **own == **name))
        };
        let on_port = |one: &&Inherited| {
            one.address.port() == bind.key.port
                && bind.key.address.is_none_or(|ip| ip == one.address.ip().to_canonical())
        };
        let mut handed: Vec<_> = self.inherited.iter().filter(named).collect();
        if handed.is_empty() {
            handed = self.inherited.iter().filter(on_port).collect();
        }
        if !handed.is_empty() {
            return handed.into_iter().map(|one| one.listener.try_clone()).collect();
        }
        let port = bind.key.port;
        match bind.key.address {
            Some(address) => Ok(vec![listen(SocketAddr::new(address, port))?]),
            // One socket for both families, or IPv4 alone on a host without IPv6.
            None => match listen(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)) {
                Err(error) if no_ipv6(&error) => {
                    Ok(vec![listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))?])
                }
                listened => Ok(vec![listened?]),
            },
        }
    }
}

/// A listening socket, not blocking.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of the process before this one may still be ending on the same port.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Why `address` cannot be listened on; `None` if it can, as far as binding any port of it tells.
pub(super) fn unusable_address(address: IpAddr) -> Option<String> {
    TcpListener::bind(SocketAddr::new(address, 0)).err().map(|error| error.to_string())
}

fn no_ipv6(error: &io::Error) -> bool {
    use nix::errno::Errno;
    let codes = [Errno::EAFNOSUPPORT, Errno::EADDRNOTAVAIL, Errno::EPROTONOSUPPORT];
    codes.iter().any(|code| error.raw_os_error() == Some(*code as i32))
}

/// What to do about it.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; see who has it with `ss -ltnp`, or hand the socket over",
        io::ErrorKind::PermissionDenied => {
            "; ports below 1024 come from edge-gateway.socket, or need CAP_NET_BIND_SERVICE"
        }
        io::ErrorKind::AddrNotAvailable => "; no interface of this host has that address",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::HostTable;

    fn snapshot(binds: &[(u16, &str)]) -> Snapshot {
        let bind = |(port, name): &(u16, &str)| {
            Arc::new(Bind {
                key: BindKey { address: None, port: *port },
                names: vec![(*name).into()],
                tls: false,
                listeners: HostTable::default(),
            })
        };
        Snapshot { binds: binds.iter().map(bind).collect(), ..Snapshot::default() }
    }

    fn handed(name: &str) -> Inherited {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        Inherited { name: Some(name.into()), listener, address }
    }

    #[test]
    fn a_name_counts_before_a_port_and_both_before_binding() {
        let (http, other) = (handed("http"), handed("other"));
        let (http_at, other_at) = (http.address, other.address);
        let sockets = Sockets::new(vec![http, other]);
        // `http` is taken by name though its port differs; `https` by the port of the other.
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
    fn what_stays_is_kept_and_what_goes_is_closed() {
        let mut sockets = Sockets::new(vec![handed("http"), handed("https")]);
        let mut first = sockets.prepare(&snapshot(&[(8080, "http"), (8443, "https")])).unwrap();
        let https = first.new[1].1;
        sockets.commit(&mut first);

        let second = sockets.prepare(&snapshot(&[(8080, "http")])).unwrap();

        assert!(second.new.is_empty());
        assert_eq!(second.gone, [https]);
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
