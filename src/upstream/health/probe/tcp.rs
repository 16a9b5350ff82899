//! The TCP check: a connection, or bytes that the host answers with expected bytes.

use bytes::BytesMut;
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::upstream::connect::Stream;
use crate::upstream::health::outcome::Outcome;
use crate::upstream::health::settings::TcpProbe;

/// Number of bytes of an answer that are searched for the expected bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Sends the bytes of the check, and reads until the expected bytes have come.
pub(super) async fn tcp(mut stream: Stream, probe: &TcpProbe) -> Outcome {
    let sent = async {
        stream.write_all(&probe.send).await?;
        stream.flush().await
    };
    if let Err(error) = sent.await {
        return Outcome::unanswered(format!("cannot send: {error}"));
    }
    let mut answer = BytesMut::new();
    while memmem::find(&answer, &probe.receive).is_none() {
        if answer.len() >= MAX_ANSWER {
            return Outcome::unanswered("the answer does not contain the expected bytes");
        }
        match stream.read_buf(&mut answer).await {
            Ok(0) => return Outcome::unanswered("closed without the expected bytes"),
            Ok(_) => {}
            Err(error) => return Outcome::unanswered(format!("cannot receive: {error}")),
        }
    }
    Outcome::Passed
}
