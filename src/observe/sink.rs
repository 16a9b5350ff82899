//! Outputs of a log: what its writer thread writes batches to.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::thread;
use std::time::Duration;

/// Size of the length in front of a line, in bytes; see [`Sink::HAS_LENGTHS`].
pub(super) const LENGTH_BYTES: usize = size_of::<u32>();

/// The output of the writer thread.
pub(super) trait Sink: Send + 'static {
    /// If true, each line of a batch has its length in front of it, as a `u32` in native byte
    /// order. Otherwise each line ends with a newline.
    const HAS_LENGTHS: bool = false;

    /// Writes a batch of `lines` lines. Blocks until it is written or lost.
    ///
    /// # Errors
    ///
    /// The number of lost lines, and the reason.
    fn write(&mut self, batch: &[u8], lines: u64) -> Result<(), Lost>;

    /// Called at the start of each pass, even if there are no batches. The sink may switch to
    /// another file here.
    fn turn(&mut self) {}
}

/// Lines that could not be written.
#[derive(Debug)]
pub(super) struct Lost {
    pub lines: u64,
    pub error: io::Error,
}

/// A sink that writes to standard output, standard error or another writer. Lines include their
/// newline; a batch is one write.
pub(super) struct Descriptor<W> {
    to: W,
    /// True if the last write ended inside a line.
    torn: bool,
}

impl Descriptor<File> {
    /// Returns a sink for standard output. Does not use `io::stdout()`, which would search every
    /// batch for the last newline.
    pub(super) fn stdout() -> io::Result<Self> {
        Ok(Self::new(io::stdout().as_fd().try_clone_to_owned()?.into()))
    }

    pub(super) fn stderr() -> io::Result<Self> {
        Ok(Self::new(io::stderr().as_fd().try_clone_to_owned()?.into()))
    }
}

impl<W: Write> Descriptor<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, torn: false }
    }

    /// Writes all bytes.
    ///
    /// # Errors
    ///
    /// The number of bytes written before the error, and the error.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
        let mut rest = bytes;
        // Another process that shares the descriptor may have made it non-blocking. If the reader
        // reads nothing for a second, the batch is lost.
        let mut patience = 100;
        while !rest.is_empty() {
            match self.to.write(rest) {
                Ok(0) => return Err((bytes.len() - rest.len(), io::ErrorKind::WriteZero.into())),
                Ok(written) => {
                    self.torn = rest[written - 1] != b'\n';
                    rest = &rest[written..];
                    patience = 100;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && patience > 0 => {
                    patience -= 1;
                    thread::park_timeout(Duration::from_millis(10));
                }
                Err(error) => return Err((bytes.len() - rest.len(), error)),
            }
        }
        Ok(())
    }
}

impl<W: Write + Send + 'static> Sink for Descriptor<W> {
    fn write(&mut self, batch: &[u8], lines: u64) -> Result<(), Lost> {
        if self.torn {
            self.write_all(b"\n").map_err(|(_, error)| Lost { lines, error })?;
        }
        self.write_all(batch).map_err(|(written, error)| {
            let whole = batch[..written].iter().filter(|byte| **byte == b'\n').count();
            Lost { lines: lines.saturating_sub(whole as u64), error }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A writer that accepts a few bytes, then fails once, then accepts all.
    struct Flaky(Vec<u8>, u32);

    impl Write for Flaky {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            match self.1 {
                1 => {
                    self.0.extend_from_slice(&bytes[..3]);
                    Ok(3)
                }
                2 => Err(io::ErrorKind::StorageFull.into()),
                _ => {
                    self.0.extend_from_slice(bytes);
                    Ok(bytes.len())
                }
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_was_cut_does_not_spoil_the_next() {
        let mut descriptor = Descriptor::new(Flaky(Vec::new(), 0));
        let lost = descriptor.write(b"first\n", 1).unwrap_err();
        assert_eq!((lost.lines, lost.error.kind()), (1, io::ErrorKind::StorageFull));
        assert!(descriptor.write(b"second\n", 1).is_ok());
        assert_eq!(descriptor.to.0, b"fir\nsecond\n");
    }

    #[test]
    fn lines_that_went_out_whole_are_not_counted_as_lost() {
        let mut descriptor = Descriptor::new(Flaky(Vec::new(), 0));
        assert_eq!(descriptor.write(b"a\nbc\nd\n", 3).unwrap_err().lines, 2);
        assert_eq!(descriptor.to.0, b"a\nb");
    }
}
