//! The tunnel: carries bytes in both directions between a client and a backend.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::clock::coarse_now;
use crate::downstream::{BrokenEnd, TwoWay, silence};

/// The reason why a tunnel ended before both ends had ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum TunnelBroken {
    #[error("backend")]
    Backend(#[source] io::Error),
    #[error("client")]
    Client(#[source] io::Error),
    /// No byte moved for the limit.
    #[error("nothing moved for the tunnel timeout")]
    Silent,
}

/// Carries bytes in both directions until both ends have ended. If one end has ended, the end is
/// passed on, and the other may continue to send. Carried bytes are reported at once, to `up` from
/// the client and to `down` to the client.
///
/// # Errors
///
/// Returns the end that broke, or `Silent` if no byte has moved for `limit`.
pub(super) async fn carry(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
    backend: &mut (impl AsyncRead + AsyncWrite + Unpin),
    limit: Duration,
    up: impl Fn(u64),
    down: impl Fn(u64),
) -> Result<(), TunnelBroken> {
    let moved = AtomicU64::new(coarse_now());
    let mut tunnel = TwoWay::new();
    let carried = poll_fn(|cx| {
        let up = |bytes: &[u8]| up(bytes.len() as u64);
        let down = |bytes: &[u8]| down(bytes.len() as u64);
        tunnel.poll(cx, (&mut *client, &mut *backend), &moved, up, down)
    });
    tokio::select! {
        biased;
        ended = carried => match ended {
            Ok(_) => Ok(()),
            Err(BrokenEnd::Backend(error)) => Err(TunnelBroken::Backend(error)),
            Err(BrokenEnd::Client(error)) => Err(TunnelBroken::Client(error)),
        },
        () = silence(&moved, limit) => Err(TunnelBroken::Silent),
    }
}
