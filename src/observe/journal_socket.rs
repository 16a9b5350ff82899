//! The socket of journald, a sink that sends each record as one datagram.

use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, sendmmsg};
use socket2::SockRef;

use super::sink::{LENGTH_BYTES, Lost, Sink};

const SOCKET: &str = "/run/systemd/journal/socket";
/// The size that systemd's own clients request; the kernel grants it within its limits.
const SEND_BUFFER_BYTES: usize = 8 << 20;
/// Maximum number of records that one system call sends.
const RECORDS_PER_CALL: usize = 64;
/// Pause between two attempts to reach journald while it restarts, and the number of attempts.
const PAUSE: Duration = Duration::from_millis(10);
const ATTEMPTS: u32 = 30;

/// A datagram socket that is connected to journald.
///
/// The socket is connected by path again for each batch and after each loss of the connection, so
/// that a restarted journald receives the next record even if its socket is a new one. Sending
/// blocks while journald's receive queue is full.
pub(super) struct JournalSocket {
    socket: UnixDatagram,
    path: PathBuf,
    /// True if the last attempt to connect succeeded. Only then is a missing journald waited for:
    /// it may be restarting.
    was_reached: bool,
}

/// A record as the system call takes it: a message of one part.
type Message<'a> = [IoSlice<'a>; 1];

impl JournalSocket {
    pub(super) fn system() -> io::Result<Self> {
        Self::to(Path::new(SOCKET))
    }

    pub(super) fn to(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // With a smaller buffer, the writer thread only waits more often.
        let _ = SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER_BYTES);
        Ok(Self { socket, path: path.to_owned(), was_reached: false })
    }

    /// Connects to the socket that is at the path now.
    fn connect(&mut self) -> io::Result<()> {
        let mut attempts = if self.was_reached { ATTEMPTS } else { 1 };
        loop {
            attempts -= 1;
            match self.socket.connect(&self.path) {
                Ok(()) => {
                    self.was_reached = true;
                    return Ok(());
                }
                Err(_) if attempts > 0 => thread::park_timeout(PAUSE),
                Err(error) => {
                    self.was_reached = false;
                    return Err(error);
                }
            }
        }
    }

    /// Sends messages with one system call, from the first. Returns the number that was sent; an
    /// error belongs to the first message.
    fn send(&self, messages: &[Message<'_>]) -> nix::Result<usize> {
        let messages = &messages[..messages.len().min(RECORDS_PER_CALL)];
        let mut headers = MultiHeaders::<()>::preallocate(messages.len(), None);
        let to_the_connected = [None; RECORDS_PER_CALL];
        let sent = sendmmsg(
            self.socket.as_raw_fd(),
            &mut headers,
            messages,
            to_the_connected,
            [],
            MsgFlags::empty(),
        )?;
        Ok(sent.count())
    }
}

impl Sink for JournalSocket {
    const HAS_LENGTHS: bool = true;

    fn write(&mut self, batch: &[u8], _lines: u64) -> Result<(), Lost> {
        let messages: Vec<Message<'_>> =
            Records(batch).map(|record| [IoSlice::new(record)]).collect();
        let mut rest = &messages[..];
        let mut lost: Option<Lost> = None;
        let lose = |lost: Option<Lost>, lines: usize, error| {
            let before = lost.map_or(0, |lost| lost.lines);
            Some(Lost { lines: before + lines as u64, error })
        };
        let mut is_connected = false;
        while !rest.is_empty() {
            if !is_connected && let Err(error) = self.connect() {
                lost = lose(lost, rest.len(), error);
                break;
            }
            is_connected = true;
            match self.send(rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::EINTR) => {}
                // journald closed its socket.
                Err(Errno::ECONNREFUSED | Errno::ENOTCONN) => is_connected = false,
                // This record cannot be sent, such as one that is too large (EMSGSIZE).
                Err(error) => {
                    lost = lose(lost, 1, error.into());
                    rest = &rest[1..];
                }
            }
        }
        lost.map_or(Ok(()), Err)
    }
}

/// The records of a batch.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, after) = self.0.split_first_chunk::<LENGTH_BYTES>()?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap_or(usize::MAX);
        let (record, rest) = after.split_at(length.min(after.len()));
        self.0 = rest;
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn bound(path: &Path) -> UnixDatagram {
        let journald = UnixDatagram::bind(path).unwrap();
        journald.set_read_timeout(Some(PATIENCE)).unwrap();
        journald
    }

    fn batch<T: AsRef<[u8]>>(records: impl IntoIterator<Item = T>) -> Vec<u8> {
        let mut batch = Vec::new();
        for record in records {
            let record = record.as_ref();
            batch.extend_from_slice(&u32::try_from(record.len()).unwrap().to_ne_bytes());
            batch.extend_from_slice(record);
        }
        batch
    }

    fn received(journald: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = journald.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// More records than the receive queue and one call take, sent before anybody reads.
    #[test]
    fn a_full_receive_queue_makes_the_writer_wait_and_loses_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = bound(&path);
        let count = 5_000;
        let mut sink = JournalSocket::to(&path).unwrap();
        let writer = thread::spawn(move || {
            let records = (0..count).map(|number: u32| number.to_string());
            sink.write(&batch(records), count.into()).map_err(|lost| lost.lines)
        });
        for number in 0..count {
            assert_eq!(received(&journald), number.to_string());
        }
        assert_eq!(writer.join().unwrap(), Ok(()));
    }

    #[test]
    fn a_record_that_is_too_large_does_not_keep_back_the_others_of_its_batch() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let journald = bound(&path);
        let mut sink = JournalSocket::to(&path).unwrap();
        let huge = vec![b'x'; 3 * SEND_BUFFER_BYTES];
        let records: [&[u8]; 6] = [&huge, b"a", b"b", &huge, b"c", &huge];
        let lost = sink.write(&batch(records), 6).unwrap_err();
        assert_eq!(lost.lines, 3);
        assert_eq!(lost.error.raw_os_error(), Some(Errno::EMSGSIZE as i32));
        assert_eq!(["a", "b", "c"].map(|_| received(&journald)), ["a", "b", "c"]);
    }

    #[test]
    fn a_replaced_socket_receives_the_next_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut sink = JournalSocket::to(&path).unwrap();
        let first = bound(&path);
        sink.write(&batch(["a"]), 1).unwrap();
        assert_eq!(received(&first), "a");

        drop(first);
        fs::remove_file(&path).unwrap();
        let second = bound(&path);
        sink.write(&batch(["b"]), 1).unwrap();
        assert_eq!(received(&second), "b");

        // The previous socket is still open, and nobody will read from it.
        fs::remove_file(&path).unwrap();
        let third = bound(&path);
        sink.write(&batch(["c"]), 1).unwrap();
        assert_eq!(received(&third), "c");
    }

    /// The writer waits for room in the receive queue when its socket is closed.
    #[test]
    fn a_socket_that_is_replaced_within_a_batch_receives_the_rest_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let first = bound(&path);
        let count = 5_000;
        let mut sink = JournalSocket::to(&path).unwrap();
        let writer = thread::spawn(move || {
            let records = (0..count).map(|number: u32| number.to_string());
            sink.write(&batch(records), count.into()).map_err(|lost| lost.lines)
        });
        for number in 0..100 {
            assert_eq!(received(&first), number.to_string());
        }
        fs::remove_file(&path).unwrap();
        drop(first);
        let second = bound(&path);
        // What was in the queue of the first is gone with it.
        let from: u32 = received(&second).parse().unwrap();
        assert!((100..count).contains(&from), "{from}");
        for number in from + 1..count {
            assert_eq!(received(&second), number.to_string());
        }
        assert_eq!(writer.join().unwrap(), Ok(()));
    }

    #[test]
    fn a_batch_is_lost_while_there_is_no_journald() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut sink = JournalSocket::to(&path).unwrap();
        assert_eq!(sink.write(&batch(["a", "b"]), 2).unwrap_err().lines, 2);

        let journald = bound(&path);
        sink.write(&batch(["c"]), 1).unwrap();
        assert_eq!(received(&journald), "c");
        drop(journald);
        // The file is there, but no socket. Waited for once, then not any more.
        for _ in 0..2 {
            let lost = sink.write(&batch(["d", "e", "f"]), 3).unwrap_err();
            assert_eq!(lost.lines, 3);
            assert_eq!(lost.error.kind(), io::ErrorKind::ConnectionRefused);
        }
    }
}
