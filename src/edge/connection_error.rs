//! The reasons why a connection ends before or without HTTP.

use std::io;
use std::pin::pin;

use tokio::time::timeout;

use crate::downstream::{Ending, GRACE, Watch};
use crate::proxy::HttpEnded;
use crate::proxy_protocol::NotAHeader;
use crate::tls;

/// The reason why a connection ended, if not by its client's choice.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectionError {
    #[error("closed within the PROXY header")]
    CutShort,
    #[error(transparent)]
    Http(#[from] HttpEnded),
    #[error("socket")]
    Io(#[from] io::Error),
    #[error("a time limit passed or a drain ended")]
    Late,
    #[error("PROXY protocol")]
    NoHeader(#[source] NotAHeader),
    #[error("TLS")]
    NoHello(#[source] tls::NoHello),
    #[error("TLS")]
    Tls(#[from] tls::HelloError),
    #[error("the client has too many connections")]
    TooMany,
    #[error("no listener for the name of the TLS handshake")]
    UnknownName,
}

impl ConnectionError {
    /// Returns true if a connection was closed because it has no valid PROXY header in time.
    pub(super) fn is_of_header(&self) -> bool {
        matches!(self, Self::CutShort | Self::Late | Self::NoHeader(_))
    }
}

/// Awaits `work`, unless the connection is asked to end in the meantime and its grace period has
/// passed.
pub(super) async fn unless_ending<T>(
    watch: &Watch,
    work: impl Future<Output = T>,
) -> Result<T, ConnectionError> {
    let mut work = pin!(work);
    tokio::select! {
        done = &mut work => return Ok(done),
        ending = watch.ending(None) => if ending > Ending::Gracefully {
            return Err(ConnectionError::Late);
        }
    }
    timeout(GRACE, work).await.map_err(|_| ConnectionError::Late)
}
