//! Sockets inherited from the service manager: `sd_listen_fds(3)`.
//!
//! listenfd identifies descriptors by their index alone. The order of descriptors is not guaranteed
//! if several socket units feed a service, so sockets are identified by name, and the names are
//! read here.

use std::env;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::process;

use listenfd::ListenFd;
use socket2::SockRef;

use crate::net::ServerSocket;

/// Limit on `LISTEN_FDS`, to reject a damaged value. More than any unit passes.
const MOST: usize = 1024;

/// A listening TCP socket, or a UDP socket, that was open before the process started.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// `FileDescriptorName=` of the socket unit; `None` if it has no name. Without that line,
    /// systemd passes the name of the unit (`edge-gateway-http.socket`).
    pub name: Option<String>,
    /// Non-blocking, and close-on-exec.
    pub socket: ServerSocket,
    pub address: SocketAddr,
}

/// An inherited descriptor that the gateway cannot use. It was closed, if it was a socket.
#[derive(Debug)]
pub(crate) struct Ignored {
    /// Index in the list, from 0.
    pub index: usize,
    pub name: Option<String>,
    pub what: &'static str,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "socket `{name}` handed over")?,
            None => write!(f, "socket {} handed over", self.index)?,
        }
        write!(f, " is {}", self.what)?;
        f.write_str("; a listening TCP socket or a UDP socket would be right")
    }
}

/// The error that the service manager's sockets are for another process, such as a shell that
/// started this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ForAnother {
    /// `LISTEN_PID`.
    pid: String,
    own: u32,
}

impl fmt::Display for ForAnother {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the sockets of the service manager are for process {} (LISTEN_PID), this is process {}: \
             a script that starts the gateway has to do so with `exec`, and not within a pipe",
            self.pid, self.own
        )
    }
}

/// The result of [`inherited`].
#[derive(Debug, Default)]
pub(crate) struct Handed {
    pub sockets: Vec<Inherited>,
    /// Set if the sockets are for another process.
    pub for_another: Option<ForAnother>,
    /// To be logged by the caller: this runs before logging is set up.
    pub ignored: Vec<Ignored>,
}

/// The reason why the inherited sockets cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidHandover {
    #[error("`LISTEN_FDS` is `{}`; a number of sockets up to {MOST} would be right", .0.escape_debug())]
    Count(String),
    #[error("socket {index} handed over cannot be prepared")]
    Socket { index: usize, source: io::Error },
}

/// Takes the sockets of `LISTEN_FDS`. The result has none if there are none, or if they are for
/// another process (`LISTEN_PID`; unset, it means this one), which [`Handed::for_another`] reports.
///
/// Must be called once, and before any thread is started: listenfd removes `LISTEN_FDS` and
/// `LISTEN_PID` from the environment, and no other thread may read it meanwhile.
///
/// # Errors
///
/// `LISTEN_FDS` is not a number, or the kernel refuses to make a socket non-blocking.
pub(crate) fn inherited() -> Result<Handed, InvalidHandover> {
    let Some(count) = env::var_os("LISTEN_FDS").filter(|count| !count.is_empty()) else {
        return Ok(Handed::default());
    };
    let pid = env::var_os("LISTEN_PID").unwrap_or_default();
    if let Some(other) = for_another(&pid.to_string_lossy(), process::id()) {
        return Ok(Handed { for_another: Some(other), ..Handed::default() });
    }
    let count = count.to_string_lossy();
    if !count.parse::<usize>().is_ok_and(|count| count <= MOST) {
        return Err(InvalidHandover::Count(count.into_owned()));
    }
    let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut sockets = ListenFd::from_env();
    let mut handed = Handed::default();
    for (index, name) in (0..sockets.len()).zip(names_of(&names)) {
        match take(&mut sockets, index) {
            Ok(socket) => {
                let ready = prepare(socket, name);
                let inherited =
                    ready.map_err(|source| InvalidHandover::Socket { index, source })?;
                handed.sockets.push(inherited);
            }
            Err(what) => handed.ignored.push(Ignored { index, name, what }),
        }
    }
    Ok(handed)
}

fn for_another(pid: &str, own: u32) -> Option<ForAnother> {
    let is_for_us = pid.is_empty() || pid.trim().parse() == Ok(own);
    (!is_for_us).then(|| ForAnother { pid: pid.escape_debug().to_string(), own })
}

/// Returns the names, then `None` without end. systemd writes `unknown` for a socket without a
/// name.
fn names_of(text: &str) -> impl Iterator<Item = Option<String>> {
    let name = |name: &str| (!matches!(name, "" | "unknown")).then(|| name.to_owned());
    text.split(':').map(name).chain(std::iter::repeat(None))
}

/// Takes a socket. One of an unsupported kind is dropped, so that it is closed.
fn take(sockets: &mut ListenFd, index: usize) -> Result<ServerSocket, &'static str> {
    if let Ok(Some(listener)) = sockets.take_tcp_listener(index) {
        // `Accept=yes` passes a connection.
        return match SockRef::from(&listener).is_listener() {
            Ok(true) => Ok(ServerSocket::Tcp(listener)),
            _ => Err("a TCP connection"),
        };
    }
    if let Ok(Some(socket)) = sockets.take_udp_socket(index) {
        return match socket.peer_addr() {
            Ok(_) => Err("a UDP socket that is connected to one peer"),
            Err(_) => Ok(ServerSocket::Udp(socket)),
        };
    }
    if let Ok(Some(_)) = sockets.take_unix_listener(index) {
        return Err("a UNIX stream socket");
    }
    if let Ok(Some(_)) = sockets.take_unix_datagram(index) {
        return Err("a UNIX datagram socket");
    }
    Err("no socket")
}

fn prepare(socket: ServerSocket, name: Option<String>) -> io::Result<Inherited> {
    // systemd passes blocking sockets unless the unit has `NonBlocking=yes`; a blocking socket
    // would block a worker thread in `accept`. listenfd has set close-on-exec.
    socket.set_nonblocking(true)?;
    let address = socket.local_addr()?;
    Ok(Inherited { name, socket, address })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn sockets_are_known_by_name_and_a_missing_one_is_none() {
        // (LISTEN_FDNAMES, the names of the first three sockets)
        let table = [
            ("http:https", [Some("http"), Some("https"), None]),
            ("", [None, None, None]),
            ("unknown:web", [None, Some("web"), None]),
            ("a::b:c", [Some("a"), None, Some("b")]),
            ("edge-gateway.socket", [Some("edge-gateway.socket"), None, None]),
        ];
        for (text, want) in table {
            let got: Vec<_> = names_of(text).take(3).collect();
            assert_eq!(got.iter().map(Option::as_deref).collect::<Vec<_>>(), want, "{text}");
        }
    }

    #[test]
    fn sockets_of_another_process_are_left_and_told() {
        // (LISTEN_PID, true if it is another process than 7, part of the message)
        let table = [
            ("", false, ""),
            ("7", false, ""),
            ("8", true, "process 8 (LISTEN_PID), this is process 7"),
            ("7\r", false, ""),
            ("8\r", true, "process 8\\r (LISTEN_PID)"),
            ("self", true, "process self (LISTEN_PID)"),
        ];
        for (pid, is_another, want) in table {
            let told = for_another(pid, 7).map(|other| other.to_string());
            assert_eq!(told.is_some(), is_another, "{pid:?}");
            let told = told.unwrap_or_default();
            assert!(told.contains(want), "{told}");
            assert!(!told.contains('\r'), "{told:?}");
        }
    }

    #[test]
    fn an_inherited_socket_does_not_block() {
        let listener = ServerSocket::Tcp(TcpListener::bind("127.0.0.1:0").unwrap());
        let inherited = prepare(listener, Some("http".into())).unwrap();
        assert!(inherited.address.port() > 0);
        let ServerSocket::Tcp(listener) = inherited.socket else { panic!("it was one of TCP") };
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);

        let socket = ServerSocket::Udp(UdpSocket::bind("127.0.0.1:0").unwrap());
        let inherited = prepare(socket, None).unwrap();
        let ServerSocket::Udp(socket) = inherited.socket else { panic!("it was one of UDP") };
        assert_eq!(socket.recv_from(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn what_is_ignored_is_said_with_its_name() {
        let ignored = |name: Option<&str>| {
            Ignored { index: 1, name: name.map(Into::into), what: "a UNIX stream socket" }
                .to_string()
        };
        let right = "a listening TCP socket or a UDP socket would be right";
        let named = format!("socket `api` handed over is a UNIX stream socket; {right}");
        assert_eq!(ignored(Some("api")), named);
        assert_eq!(ignored(None), format!("socket 1 handed over is a UNIX stream socket; {right}"));
    }
}
