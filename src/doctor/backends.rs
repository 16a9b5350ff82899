//! Check of the backends, and a hint to those on loopback TCP.

use std::collections::HashSet;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use crate::observe::counted;
use crate::upstream::EndpointSettings;

use super::dns::look_up;
use super::finding::Finding;
use super::subject::Subject;

const CHECK: &str = "backend";
const PATIENCE: Duration = Duration::from_secs(3);
/// The maximum number of endpoints that are tried, and how many of them at once.
const MOST: usize = 500;
const AT_ONCE: usize = 32;

/// The result of a connection attempt.
#[derive(Debug)]
enum ConnectAttempt {
    Connected {
        /// Over TCP to this host itself.
        on_loopback: bool,
    },
    NoAddress(String),
    Failed(io::Error),
}

pub(super) fn look(subject: &Subject) -> Vec<Finding> {
    let Some(compiled) = &subject.load.compiled else { return Vec::new() };
    let clusters = compiled.snapshot.clusters.keys();
    let mut endpoints: Vec<(&str, &EndpointSettings)> = clusters
        .clone()
        .flat_map(|cluster| cluster.endpoints.iter().map(|endpoint| (&*cluster.name, endpoint)))
        .collect();
    let over_tls: HashSet<&str> =
        clusters.filter(|cluster| cluster.tls.is_some()).map(|cluster| &*cluster.name).collect();
    endpoints.sort_by_key(|(name, endpoint)| (*name, shown(endpoint)));
    let left_out = endpoints.len().saturating_sub(MOST);
    endpoints.truncate(MOST);

    let mut findings = Vec::new();
    let mut on_loopback = Vec::new();
    for some in endpoints.chunks(AT_ONCE) {
        thread::scope(|scope| {
            let tries: Vec<_> = some
                .iter()
                .map(|(name, endpoint)| {
                    (name, endpoint, scope.spawn(|| connect(subject, endpoint)))
                })
                .collect();
            for (name, endpoint, tried) in tries {
                // An attempt that panicked has printed that to standard error.
                let Ok(outcome) = tried.join() else { continue };
                findings.extend(judge(name, endpoint, &outcome));
                if matches!(outcome, ConnectAttempt::Connected { on_loopback: true })
                    && !over_tls.contains(name)
                {
                    on_loopback.push(*name);
                }
            }
        });
    }
    let answering = endpoints.len() - findings.len();
    if answering > 0 {
        let take = if answering == 1 { "takes" } else { "take" };
        let what = format!("{} {take} connections", counted(answering, "endpoint"));
        findings.insert(0, Finding::ok(CHECK, what));
    }
    findings.extend(hint(&on_loopback));
    if left_out > 0 {
        findings
            .push(Finding::ok(CHECK, format!("not tried: {}", counted(left_out, "more endpoint"))));
    }
    findings
}

fn connect(subject: &Subject, endpoint: &EndpointSettings) -> ConnectAttempt {
    let (host, port) = match endpoint {
        EndpointSettings::Address(address) => return tried([*address]),
        EndpointSettings::Unix(path) => {
            return match UnixStream::connect(path) {
                Ok(_) => ConnectAttempt::Connected { on_loopback: false },
                Err(error) => ConnectAttempt::Failed(error),
            };
        }
        EndpointSettings::Name { host, port } => (host, *port),
    };
    match look_up(subject, [&**host]).pop() {
        Some((_, Ok(addresses))) => {
            tried(addresses.into_iter().map(|address| SocketAddr::new(address, port)))
        }
        Some((_, Err(why))) => ConnectAttempt::NoAddress(why),
        None => ConnectAttempt::NoAddress("it was not looked up".into()),
    }
}

/// Tries the addresses in order. One that accepts is enough, since the gateway also tries them all.
fn tried(addresses: impl IntoIterator<Item = SocketAddr>) -> ConnectAttempt {
    let mut outcome = ConnectAttempt::NoAddress("there is none".into());
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(_) => {
                return ConnectAttempt::Connected {
                    on_loopback: address.ip().to_canonical().is_loopback(),
                };
            }
            Err(error) => outcome = ConnectAttempt::Failed(error),
        }
    }
    outcome
}

/// `None` if there is no fault.
fn judge(name: &str, endpoint: &EndpointSettings, outcome: &ConnectAttempt) -> Option<Finding> {
    let at = shown(endpoint);
    let (what, repair) = match (outcome, endpoint) {
        (ConnectAttempt::Connected { .. }, _) => return None,
        (ConnectAttempt::NoAddress(why), EndpointSettings::Name { host, .. }) => (
            format!("{name}: {host} has no address: {why}"),
            format!("getent ahosts {host}, and add it to /etc/hosts"),
        ),
        (ConnectAttempt::NoAddress(why), _) => {
            (format!("{name}: {at}: {why}"), "edge-gateway check".into())
        }
        (ConnectAttempt::Failed(error), EndpointSettings::Unix(path)) => {
            (format!("{name}: {at}: {error}"), unix(path, error))
        }
        (ConnectAttempt::Failed(error), endpoint) => {
            let port = match endpoint {
                EndpointSettings::Address(address) => address.port(),
                EndpointSettings::Name { port, .. } => *port,
                EndpointSettings::Unix(_) => 0,
            };
            let repair = match error.kind() {
                io::ErrorKind::ConnectionRefused => {
                    format!(
                        "start the service; ss -ltnp 'sport = :{port}' shows the program that listens there"
                    )
                }
                _ => format!("see the network between: nc -vz {}", at.replace(':', " ")),
            };
            (format!("{name}: {at}: {error}"), repair)
        }
    };
    Some(Finding::fail(CHECK, what, repair))
}

/// Suggests UNIX sockets for the backends on loopback TCP, which is not a fault but takes more CPU.
fn hint(on_loopback: &[&str]) -> Option<Finding> {
    let mut names = on_loopback.to_vec();
    names.dedup();
    let (first, more) = names.split_first()?;
    let who = match more.len() {
        0 => format!("{first} is"),
        count => format!("{first} and {} are", counted(count, "more backend")),
    };
    let what = format!(
        "{who} on loopback TCP; a UNIX socket saves about a sixth of the CPU per request, where the \
         program can listen on one (docs/unix-sockets.md)"
    );
    Some(Finding::ok(CHECK, what))
}

fn unix(path: &Path, error: &io::Error) -> String {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            format!("ls -l {shown}, and let the gateway write to it")
        }
        _ => format!("start the service that listens at {shown}"),
    }
}

fn shown(endpoint: &EndpointSettings) -> String {
    match endpoint {
        EndpointSettings::Address(address) => address.to_string(),
        EndpointSettings::Name { host, port } => format!("{host}:{port}"),
        EndpointSettings::Unix(path) => format!("unix:{}", path.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Rating;

    #[test]
    fn who_does_not_answer_is_named_with_what_to_do() {
        let refused = || ConnectAttempt::Failed(io::ErrorKind::ConnectionRefused.into());
        let late = ConnectAttempt::Failed(io::ErrorKind::TimedOut.into());
        let address = EndpointSettings::Address("10.0.0.7:8000".parse().unwrap());
        let name = EndpointSettings::Name { host: "shop.local".into(), port: 8000 };
        let unix = EndpointSettings::Unix("/run/shop.sock".into());
        let unknown = ConnectAttempt::NoAddress("unknown".into());
        // (endpoint, outcome, part of the finding, part of the repair)
        let table = [
            (&address, refused(), "10.0.0.7:8000", "sport = :8000"),
            (&address, late, "10.0.0.7:8000", "nc -vz 10.0.0.7 8000"),
            (&name, refused(), "shop.local:8000", "sport = :8000"),
            (&name, unknown, "shop.local has no address", "getent ahosts shop.local"),
            (&unix, refused(), "unix:/run/shop.sock", "listens at /run/shop.sock"),
        ];
        for (endpoint, outcome, what, repair) in table {
            let found = judge("shop", endpoint, &outcome).unwrap();
            assert!(found.what.contains(what), "{found:?}");
            assert!(found.repair.as_deref().unwrap().contains(repair), "{found:?}");
        }
        assert_eq!(judge("shop", &name, &ConnectAttempt::Connected { on_loopback: true }), None);
    }

    #[test]
    fn backends_on_loopback_are_told_of_unix_sockets() {
        assert_eq!(hint(&[]), None);
        // (clusters of the endpoints, beginning of the hint)
        let table: [(&[&str], &str); 3] = [
            (&["shop"], "shop is on loopback TCP; a UNIX socket saves"),
            (&["shop", "shop"], "shop is on loopback TCP;"),
            (&["shop", "till", "till", "wiki"], "shop and 2 more backends are on loopback TCP;"),
        ];
        for (clusters, begins) in table {
            let found = hint(clusters).unwrap();
            assert!(found.what.starts_with(begins), "{found:?}");
            assert_eq!((found.rating, found.repair), (Rating::Ok, None), "it is no fault");
        }
    }

    #[test]
    fn one_address_that_connects_is_enough() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let open = listener.local_addr().unwrap();
        let closed = {
            let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            gone.local_addr().unwrap()
        };
        assert!(matches!(tried([closed, open]), ConnectAttempt::Connected { on_loopback: true }));
        assert!(matches!(tried([closed]), ConnectAttempt::Failed(_)));
        assert!(matches!(tried([]), ConnectAttempt::NoAddress(_)));
    }
}
