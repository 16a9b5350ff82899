//! The tunnel: carries bytes in both directions between a client and a backend.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::clock::coarse_now;
use crate::downstream::{CHUNK, pass, silence};

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
    let (client_reader, client_writer) = tokio::io::split(client);
    let (backend_reader, backend_writer) = tokio::io::split(backend);
    let up = async {
        let ended = one_way(client_reader, backend_writer, &moved, up).await;
        ended.map_err(|OneWayError { reading, error }| match reading {
            true => TunnelBroken::Client(error),
            false => TunnelBroken::Backend(error),
        })
    };
    let down = async {
        let ended = one_way(backend_reader, client_writer, &moved, down).await;
        ended.map_err(|OneWayError { reading, error }| match reading {
            true => TunnelBroken::Backend(error),
            false => TunnelBroken::Client(error),
        })
    };
    tokio::select! {
        ended = async { tokio::try_join!(up, down) } => ended.map(|_| ()),
        () = silence(&moved, limit) => Err(TunnelBroken::Silent),
    }
}

/// An error in one direction.
struct OneWayError {
    /// True if the read failed, false if the write failed.
    reading: bool,
    error: io::Error,
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &AtomicU64,
    count: impl Fn(u64),
) -> Result<(), OneWayError> {
    let reading = |error| OneWayError { reading: true, error };
    let writing = |error| OneWayError { reading: false, error };
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await.map_err(reading)?;
        if length == 0 {
            return match to.shutdown().await {
                // A peer that has already disconnected needs no notification.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
                ended => ended.map_err(writing),
            };
        }
        moved.store(coarse_now(), Ordering::Relaxed);
        pass(&mut to, &chunk[..length], moved).await.map_err(writing)?;
        count(length as u64);
    }
}
