//! Notifications to the service manager: `sd_notify(3)`.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

/// Limit on the length of a status, in bytes. The service manager accepts 4 KiB per datagram and
/// drops longer ones whole; a longer status is not readable anyway.
const STATUS_BYTES: usize = 1024;
/// Limit on the time that a send waits for a full queue of the service manager.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// The connection to the service manager; clones share it.
///
/// Does nothing if `NOTIFY_SOCKET` is unset. A failed send is never an error of the gateway: the
/// first is logged, later ones are silent.
#[derive(Clone, Debug)]
pub(crate) struct Notify(Option<Arc<Line>>);

#[derive(Debug)]
struct Line {
    socket: UnixDatagram,
    address: SocketAddr,
    complained: AtomicBool,
}

impl Notify {
    /// Reads `NOTIFY_SOCKET`; the environment is not changed.
    pub(crate) fn from_env() -> Self {
        env::var_os("NOTIFY_SOCKET").map_or(Self(None), |address| Self::to(&address))
    }

    /// Sends to `address`: a path, or an abstract name after `@`.
    ///
    /// `sd_notify::notify` would connect to a file named `@...` instead, so the datagram is sent
    /// from here.
    pub(crate) fn to(address: &OsStr) -> Self {
        match open(address) {
            Ok((socket, address)) => {
                Self(Some(Arc::new(Line { socket, address, complained: AtomicBool::new(false) })))
            }
            Err(error) => {
                tracing::warn!(?address, %error, "NOTIFY_SOCKET cannot be used");
                Self(None)
            }
        }
    }

    /// Reports that the gateway is ready. Also ends a reload, whether it succeeded or not: after a
    /// `RELOADING=1` that is never followed by this, the unit hangs, and so does every later
    /// reload. `status` is in the same datagram, so a process that waits for readiness reads the
    /// matching status.
    pub(crate) fn ready(&self, status: &str) {
        if self.0.is_some() {
            self.send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
        }
    }

    /// Reports the start of a reload. The time stamp is in the same datagram, as
    /// `Type=notify-reload` requires.
    pub(crate) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(stamp) => self.send(&[NotifyState::Reloading, stamp]),
            Err(_) => self.send(&[NotifyState::Reloading]),
        }
    }

    pub(crate) fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// Sets the line in `systemctl status`: control characters become spaces, and the text is cut
    /// after 1 KiB.
    pub(crate) fn status(&self, text: &str) {
        if self.0.is_some() {
            self.send(&[NotifyState::Status(&one_line(text))]);
        }
    }

    /// Reports that the main loop is alive; due every [`watchdog_interval`].
    pub(crate) fn watchdog(&self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// Requests `more` time, counted from now, to start, reload or stop; repeat it before the time
    /// is over.
    pub(crate) fn extend_timeout(&self, more: Duration) {
        // `NotifyState::ExtendTimeoutUsec` is limited to 71 minutes.
        let state = format!("EXTEND_TIMEOUT_USEC={}", more.as_micros());
        self.send(&[NotifyState::Custom(&state)]);
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        let Some(line) = &self.0 else { return };
        let mut datagram = String::new();
        for state in states {
            datagram.push_str(&state.to_string());
            datagram.push('\n');
        }
        if let Err(error) = line.socket.send_to_addr(datagram.as_bytes(), &line.address)
            && !line.complained.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "service manager not reached, no further warning follows");
        }
    }
}

fn open(address: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "an absolute path or an abstract name after `@` would be right",
            ));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    Ok((socket, address))
}

fn one_line(text: &str) -> String {
    let cut = text.floor_char_boundary(STATUS_BYTES);
    text[..cut].replace(char::is_control, " ")
}

/// Returns the interval of [`Notify::watchdog`]: half of `WATCHDOG_USEC`.
///
/// `None` if the service manager does not request it, or requests it from another process
/// (`WATCHDOG_PID`).
pub(crate) fn watchdog_interval() -> Option<Duration> {
    let set = |name| env::var(name).ok().map(|value| value.trim().to_owned());
    let (usec, pid) = (set("WATCHDOG_USEC")?, set("WATCHDOG_PID"));
    interval(&usec, pid.as_deref(), process::id())
}

fn interval(usec: &str, asked: Option<&str>, own: u32) -> Option<Duration> {
    if asked.is_some_and(|asked| asked.parse() != Ok(own)) {
        return None;
    }
    match usec.parse() {
        Ok(0) | Err(_) => None,
        Ok(usec) => Some(Duration::from_micros(usec) / 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service manager at an address, and a connection to it.
    fn manager() -> (tempfile::TempDir, UnixDatagram, Notify) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        (dir, manager, Notify::to(path.as_os_str()))
    }

    fn receive(manager: &UnixDatagram) -> String {
        let mut bytes = [0; 8192];
        manager.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let length = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn each_state_is_one_datagram() {
        let (_dir, manager, notify) = manager();
        notify.ready("up");
        assert_eq!(receive(&manager), "READY=1\nSTATUS=up\n");
        notify.stopping();
        assert_eq!(receive(&manager), "STOPPING=1\n");
        notify.watchdog();
        assert_eq!(receive(&manager), "WATCHDOG=1\n");
        notify.extend_timeout(Duration::from_secs(7200));
        assert_eq!(receive(&manager), "EXTEND_TIMEOUT_USEC=7200000000\n");
        notify.status("serving 3 hosts");
        assert_eq!(receive(&manager), "STATUS=serving 3 hosts\n");
    }

    #[test]
    fn a_reload_brings_its_time_stamp_in_the_same_datagram() {
        let (_dir, manager, notify) = manager();
        notify.reloading();
        let datagram = receive(&manager);
        let usec = datagram.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(usec.trim_end().parse::<u64>().unwrap() > 0, "{datagram}");
    }

    #[test]
    fn a_status_cannot_smuggle_a_second_state() {
        let (_dir, manager, notify) = manager();
        notify.status("routes/a.yaml:1:1: bad\nMAINPID=1");
        assert_eq!(receive(&manager), "STATUS=routes/a.yaml:1:1: bad MAINPID=1\n");
        notify.status(&"ä".repeat(5000));
        assert_eq!(receive(&manager), format!("STATUS={}\n", "ä".repeat(STATUS_BYTES / 2)));
    }

    #[test]
    fn an_abstract_socket_is_reached() {
        let name = format!("edge-gateway-notify-test-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        Notify::to(OsStr::new(&format!("@{name}"))).ready("up");
        assert_eq!(receive(&manager), "READY=1\nSTATUS=up\n");
    }

    #[test]
    fn a_service_manager_that_is_gone_stops_nothing() {
        let (_dir, manager, notify) = manager();
        drop(manager);
        notify.ready("up");
        notify.watchdog();
        let line = notify.0.as_ref().unwrap();
        assert!(line.complained.load(Ordering::Relaxed));
        // An address of an unknown form is not an error either.
        Notify::to(OsStr::new("vsock:2:1234")).ready("up");
    }

    #[test]
    fn the_watchdog_is_fed_at_half_its_time_and_only_by_the_process_asked() {
        // (WATCHDOG_USEC, WATCHDOG_PID, interval in ms); we are process 42
        let table = [
            ("30000000", None, Some(15_000)),
            ("30000000", Some("42"), Some(15_000)),
            ("30000000", Some("43"), None),
            ("30000000", Some("x"), None),
            ("0", None, None),
            ("soon", None, None),
        ];
        for (usec, pid, want) in table {
            let want = want.map(Duration::from_millis);
            assert_eq!(interval(usec, pid, 42), want, "{usec} {pid:?}");
        }
    }
}
