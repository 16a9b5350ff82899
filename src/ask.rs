//! One HTTP/1.1 exchange with plain blocking calls: for commands, never for the gateway itself.

use std::io::{self, ErrorKind, Read, Write};

/// Bytes of a head that are read.
const HEAD: usize = 16 << 10;
const FIELDS: usize = 64;

/// An answer, read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub status: u16,
    /// The field `location`, if it is there.
    pub location: Option<String>,
    pub body: Vec<u8>,
}

/// Asks for `target` of `host` and reads the answer, of which at most `most` bytes are taken. The
/// stream's own timeouts count; it is used up.
///
/// # Errors
///
/// What the stream says; `InvalidData` for what is no answer, `UnexpectedEof` for one that was cut
/// off.
pub(crate) fn ask(
    stream: impl Read + Write,
    method: &str,
    host: &str,
    target: &str,
    most: u64,
) -> io::Result<Reply> {
    ask_for("*/*", stream, method, host, target, most)
}

/// As [`ask`], for an answer of the media types `accept`.
///
/// # Errors
///
/// Those of [`ask`].
pub(crate) fn ask_for(
    accept: &str,
    mut stream: impl Read + Write,
    method: &str,
    host: &str,
    target: &str,
    most: u64,
) -> io::Result<Reply> {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: edge-gateway/{}\r\n\
         Accept: {accept}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    let mut limited = stream.take(most);
    // Up to the end of the answer, not of the stream: not everybody closes when asked to.
    let mut chunk = [0; 8 << 10];
    loop {
        if let Some(reply) = reply(&bytes)? {
            return Ok(reply);
        }
        match limited.read(&mut chunk) {
            Ok(0) => return at_end(&bytes),
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// What a response head says.
struct Head {
    status: u16,
    location: Option<String>,
    /// The bytes of the head itself.
    length: usize,
    content_length: Option<usize>,
    chunked: bool,
}

/// The answer in `bytes`, if it is whole and says where it ends.
fn reply(bytes: &[u8]) -> io::Result<Option<Reply>> {
    let Some(head) = head(bytes)? else { return Ok(None) };
    let rest = &bytes[head.length..];
    let body = if head.chunked {
        dechunked(rest)?
    } else {
        head.content_length.and_then(|length| rest.get(..length)).map(<[u8]>::to_vec)
    };
    Ok(body.map(|body| Reply { status: head.status, location: head.location, body }))
}

/// The answer in `bytes` where nothing more comes.
fn at_end(bytes: &[u8]) -> io::Result<Reply> {
    let cut_off = || io::Error::new(ErrorKind::UnexpectedEof, "the answer was cut off");
    let Some(head) = head(bytes)? else { return Err(cut_off()) };
    if head.chunked || head.content_length.is_some() {
        return Err(cut_off());
    }
    let body = bytes[head.length..].to_vec();
    Ok(Reply { status: head.status, location: head.location, body })
}

fn head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let invalid = |what: &str| io::Error::new(ErrorKind::InvalidData, format!("no HTTP: {what}"));
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(invalid("the head is too long")),
        Err(error) => return Err(invalid(&error.to_string())),
    };
    let field = |name: &str| {
        let found = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.map(|field| String::from_utf8_lossy(field.value).trim().to_owned())
    };
    let content_length = match field("content-length") {
        Some(text) => Some(text.parse().map_err(|_| invalid("content-length"))?),
        None => None,
    };
    Ok(Some(Head {
        status: response.code.unwrap_or_default(),
        location: field("location"),
        length,
        content_length,
        chunked: field("transfer-encoding").is_some(),
    }))
}

/// The content of a chunked body, once it is whole.
fn dechunked(mut rest: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let invalid = || io::Error::new(ErrorKind::InvalidData, "no HTTP: a chunk without a length");
    let mut content = Vec::new();
    loop {
        let (start, length) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(parsed)) => parsed,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(invalid()),
        };
        if length == 0 {
            return Ok(Some(content));
        }
        let length = usize::try_from(length).map_err(|_| invalid())?;
        let Some(chunk) = rest.get(start..).and_then(|rest| rest.get(..length)) else {
            return Ok(None);
        };
        content.extend_from_slice(chunk);
        let Some(after) = rest.get(start + length + 2..) else { return Ok(None) };
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A peer that has said all it will say.
    struct Peer(io::Cursor<&'static str>);

    impl Read for Peer {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            // In small pieces, as a network may.
            let end = into.len().min(7);
            self.0.read(&mut into[..end])
        }
    }

    impl Write for Peer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answer(said: &'static str) -> Result<Reply, ErrorKind> {
        ask(Peer(io::Cursor::new(said)), "GET", "a.test", "/", 4096).map_err(|error| error.kind())
    }

    #[test]
    fn a_body_ends_where_the_head_says() {
        let reply = |body: &str| Ok(Reply { status: 200, location: None, body: body.into() });
        // (what the peer says, what is understood)
        let table = [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokay", reply("ok")),
            ("HTTP/1.1 200 OK\r\n\r\nto the end", reply("to the end")),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\n\r\n",
                reply("ok!"),
            ),
            ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", Err(ErrorKind::UnexpectedEof)),
            ("HTTP/1.1 200 OK\r\nConte", Err(ErrorKind::UnexpectedEof)),
            ("", Err(ErrorKind::UnexpectedEof)),
            ("SSH-2.0-OpenSSH_9.2\r\n", Err(ErrorKind::InvalidData)),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", Err(ErrorKind::InvalidData)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
                Err(ErrorKind::UnexpectedEof),
            ),
        ];
        for (said, want) in table {
            assert_eq!(answer(said), want, "{said:?}");
        }
    }

    #[test]
    fn a_redirect_says_where_to() {
        let reply = answer("HTTP/1.1 301 Moved\r\nLocation: https://a.test/\r\n\r\n").unwrap();
        assert_eq!((reply.status, reply.location.as_deref()), (301, Some("https://a.test/")));
    }

    #[test]
    fn no_more_is_read_than_was_asked_for() {
        struct Endless;
        impl Read for Endless {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                into.fill(b'x');
                Ok(into.len())
            }
        }
        impl Write for Endless {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert!(ask(Endless, "GET", "a.test", "/", 1 << 20).is_err());
    }
}
