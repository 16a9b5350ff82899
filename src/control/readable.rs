//! Readiness of descriptors: waits until inotify or the list of mounts is readable.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

use tokio::net::unix::pipe;

/// Reports when a descriptor is readable.
///
/// tokio's `AsyncFd` needs `unsafe`, because it may not own its descriptor. tokio's pipe owns its
/// descriptor, and only requires that epoll supports it. So this passes a copy of the descriptor to
/// it.
#[derive(Debug)]
pub(super) struct Readable(pipe::Receiver);

impl Readable {
    /// Watches `descriptor`, which must be non-blocking. Must be called inside a runtime.
    ///
    /// # Errors
    ///
    /// Fails if no file descriptor is free, or epoll does not support this kind of descriptor.
    pub(super) fn of(descriptor: impl AsFd) -> io::Result<Self> {
        let copy = descriptor.as_fd().try_clone_to_owned()?;
        pipe::Receiver::from_owned_fd_unchecked(copy).map(Self)
    }

    /// Returns the result of `read`, which is called whenever it may not block. Cancel safe.
    ///
    /// # Errors
    ///
    /// Fails if `read` does, or if the runtime is shutting down.
    pub(super) async fn read<T>(&self, mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            self.0.readable().await?;
            match self.0.try_io(&mut read) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    /// Waits for the next notification of a descriptor that has no data to read. Cancel safe.
    pub(super) async fn word(&self) -> io::Result<()> {
        self.0.readable().await?;
        let _ = self.0.try_io(|| Err::<(), _>(ErrorKind::WouldBlock.into()));
        Ok(())
    }
}
