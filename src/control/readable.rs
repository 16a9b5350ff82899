//! Waiting for descriptors that become readable: inotify and the list of mounts.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

use tokio::net::unix::pipe;

/// Tells when a descriptor can be read.
///
/// tokio's `AsyncFd` takes `unsafe`, because its descriptor may be anybody's. A pipe of tokio's owns
/// its descriptor, and asks nothing else of it than that epoll knows it; so what it owns is a copy.
#[derive(Debug)]
pub(super) struct Readable(pipe::Receiver);

impl Readable {
    /// Watches `descriptor`, which has to be one that does not block. Needs a runtime around it.
    ///
    /// # Errors
    ///
    /// No descriptor is free, or epoll does not know its kind.
    pub(super) fn of(descriptor: impl AsFd) -> io::Result<Self> {
        let copy = descriptor.as_fd().try_clone_to_owned()?;
        pipe::Receiver::from_owned_fd_unchecked(copy).map(Self)
    }

    /// What `read` gives, tried whenever it may not have to wait. Cancel safe.
    ///
    /// # Errors
    ///
    /// That of `read`, or the runtime is ending.
    pub(super) async fn read<T>(&self, mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            self.0.readable().await?;
            match self.0.try_io(&mut read) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    /// Waits for the next word of a descriptor of which nothing has to be read. Cancel safe.
    pub(super) async fn word(&self) -> io::Result<()> {
        self.0.readable().await?;
        let _ = self.0.try_io(|| Err::<(), _>(ErrorKind::WouldBlock.into()));
        Ok(())
    }
}
