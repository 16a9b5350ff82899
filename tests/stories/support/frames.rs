//! HTTP/2 by the frame, for what no honest client sends (RFC 9113).

use tokio::net::{TcpSocket, TcpStream};

use super::{Gateway, Records, SOON, Tls, Wire, soon};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
pub(crate) const PADDED: u8 = 0x8;
pub(crate) const PRIORITY_FLAG: u8 = 0x20;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// HEADERS that are the whole of a head.
    pub(crate) fn head(stream: u32, flags: u8, fields: &[(&[u8], &[u8])]) -> Self {
        let block: Vec<u8> = fields.iter().flat_map(|(n, v)| literal(n, v)).collect();
        Self::new(HEADERS, flags | END_HEADERS, stream, block)
    }

    /// A GET of `path` at shop.test, whole.
    pub(crate) fn get(stream: u32, path: &str) -> Self {
        Self::head(stream, END_STREAM, &request_fields("GET", path))
    }

    pub(crate) fn reset(stream: u32, code: u32) -> Self {
        Self::new(RST_STREAM, 0, stream, code.to_be_bytes())
    }

    pub(crate) fn window(stream: u32, more: u32) -> Self {
        Self::new(WINDOW_UPDATE, 0, stream, more.to_be_bytes())
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes_with_length(self.payload.len())
    }

    /// The frame with a length that may be a lie.
    pub(crate) fn bytes_with_length(&self, length: usize) -> Vec<u8> {
        let length = u32::try_from(length).unwrap().to_be_bytes();
        let stream = self.stream.to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], self.kind, self.flags];
        bytes.extend(stream);
        bytes.extend(&self.payload);
        bytes
    }

    pub(crate) fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The four bytes at `at` of the payload as a number; 0 if there are none.
    pub(crate) fn number(&self, at: usize) -> u32 {
        let bytes = self.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        u32::from_be_bytes(bytes.unwrap_or_default())
    }
}

/// A field as HPACK writes it without any table (RFC 7541 section 6.2.2).
pub(crate) fn literal(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        bytes.extend(integer(text.len()));
        bytes.extend(text);
    }
    bytes
}

/// An integer of HPACK with a prefix of seven bits.
fn integer(mut number: usize) -> Vec<u8> {
    let low = |number: usize| u8::try_from(number & 0x7f).unwrap();
    if number < 127 {
        return vec![low(number)];
    }
    let mut bytes = vec![127];
    number -= 127;
    while number >= 128 {
        bytes.push(low(number) | 0x80);
        number >>= 7;
    }
    bytes.push(low(number));
    bytes
}

/// What every request needs, for shop.test.
pub(crate) fn request_fields<'a>(method: &'a str, path: &'a str) -> [(&'a [u8], &'a [u8]); 4] {
    [
        (b":method", method.as_bytes()),
        (b":scheme", b"https"),
        (b":authority", b"shop.test"),
        (b":path", path.as_bytes()),
    ]
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// An answer, whole.
    Answer { status: u16, body: Vec<u8> },
    /// An answer that was broken off.
    Cut { status: u16, code: u32 },
    /// The stream alone was refused.
    Reset(u32),
    /// The connection was ended, with this error.
    GoAway(u32),
    /// The connection was ended without a word.
    Closed,
    /// Nothing became of it for a long time.
    Silence,
}

impl Outcome {
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Answer { status, .. } | Self::Cut { status, .. } => Some(*status),
            Self::Reset(_) | Self::GoAway(_) | Self::Closed | Self::Silence => None,
        }
    }

    /// True if the request was refused in one of the ways that RFC 9113 leaves open for a malformed
    /// one: an error of the stream or the connection, or a status of 400 to 431.
    pub(crate) fn is_refusal(&self) -> bool {
        let refused = |status| (400..=431).contains(&status) && status != 404;
        *self != Self::Silence && self.status().is_none_or(refused)
    }
}

/// A client that writes frames as it likes.
#[derive(Debug)]
pub(crate) struct H2 {
    wire: Wire,
}

impl H2 {
    /// Connects for shop.test, and says what a client has to say first.
    pub(crate) async fn connect(gateway: &Gateway) -> Self {
        Self::connect_with(gateway, &[]).await
    }

    /// The same from an address of its own.
    pub(crate) async fn connect_from(client: &str, gateway: &Gateway) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{client}:0").parse().unwrap()).unwrap();
        let stream = socket.connect(gateway.https()).await.unwrap();
        let tls = Tls::of("shop.test").alpn(&["h2"]).handshake(stream).await.unwrap();
        Self { wire: Wire::over(tls) }.greet(&[]).await
    }

    /// The same on a connection whose records are counted.
    pub(crate) async fn counted(gateway: &Gateway) -> (Self, Records) {
        let stream = TcpStream::connect(gateway.https()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (stream, records) = Records::of(stream);
        let tls = Tls::of("shop.test").alpn(&["h2"]).handshake(stream).await.unwrap();
        (Self { wire: Wire::over(tls) }.greet(&[]).await, records)
    }

    /// The same with settings: identifier and value.
    pub(crate) async fn connect_with(gateway: &Gateway, settings: &[(u16, u32)]) -> Self {
        Self::bare(gateway).await.greet(settings).await
    }

    /// Says what a client has to say first.
    async fn greet(mut self, settings: &[(u16, u32)]) -> Self {
        // A dynamic table of no size keeps what comes readable without one.
        let mut payload = vec![0, 1, 0, 0, 0, 0];
        for (identifier, value) in settings {
            payload.extend(identifier.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        let settings = Frame::new(SETTINGS, 0, 0, payload);
        self.send([PREFACE, &settings.bytes()].concat()).await;
        self
    }

    /// Connects for shop.test with nothing said yet.
    pub(crate) async fn bare(gateway: &Gateway) -> Self {
        let tls = Tls::of("shop.test").alpn(&["h2"]).connect(gateway.https()).await.unwrap();
        Self { wire: Wire::over(tls) }
    }

    /// The other end of a connection: the gateway is the client on `wire`, in clear.
    pub(crate) async fn backend(wire: Wire) -> Self {
        let mut h2 = Self { wire };
        assert_eq!(h2.wire.exactly(PREFACE.len()).await, PREFACE);
        h2.frame(&Frame::new(SETTINGS, 0, 0, [])).await;
        h2
    }

    /// The stream of the next request. Frames of other streams on the way to it are passed over.
    ///
    /// # Panics
    ///
    /// The gateway closes the connection first.
    pub(crate) async fn request(&mut self) -> u32 {
        loop {
            let frame = soon("a request", self.next()).await.expect("a request before the end");
            if frame.kind == HEADERS {
                return frame.stream;
            }
        }
    }

    /// Ends the connection.
    pub(crate) async fn close(mut self) {
        self.wire.finish().await;
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.send(bytes).await;
    }

    /// Sends bytes until all are sent or the gateway has closed.
    pub(crate) async fn push(&mut self, bytes: &[u8]) -> bool {
        self.wire.push(bytes).await.is_ok()
    }

    pub(crate) async fn frame(&mut self, frame: &Frame) {
        self.send(frame.bytes()).await;
    }

    /// Reads on and answers nothing, PINGs neither; true once the gateway has closed.
    pub(crate) async fn ends_unanswered(&mut self) -> bool {
        self.wire.rest().await;
        true
    }

    /// The next frame that tells the story something: settings and pings are just acknowledged.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            let head = self.wire.exactly(9).await;
            let [l0, l1, l2, kind, flags, stream @ ..] = head.as_slice() else { return None };
            let length = u32::from_be_bytes([0, *l0, *l1, *l2]);
            let stream = u32::from_be_bytes(stream.try_into().ok()?);
            let payload = self.wire.exactly(usize::try_from(length).unwrap()).await;
            let frame = Frame::new(*kind, *flags, stream, payload);
            match frame.kind {
                SETTINGS if !frame.is(ACK) => {
                    self.frame(&Frame::new(SETTINGS, ACK, 0, [])).await;
                }
                PING if !frame.is(ACK) => {
                    self.frame(&Frame::new(PING, ACK, 0, frame.payload)).await;
                }
                SETTINGS => {}
                // The window of the connection is the gateway's to widen.
                WINDOW_UPDATE if frame.stream == 0 => {}
                _ => return Some(frame),
            }
        }
    }

    /// Sends a PING and reads on until it is answered. All that the gateway sent before has come.
    pub(crate) async fn ping(&mut self) {
        let ping = Frame::new(PING, 0, 0, *b"are you?");
        self.frame(&ping).await;
        loop {
            let frame = soon("the answer to a PING", self.next()).await.expect("an answer");
            if frame.kind == PING && frame.payload == ping.payload {
                return;
            }
        }
    }

    /// Reads on until it is known what became of `stream`.
    pub(crate) async fn outcome(&mut self, stream: u32) -> Outcome {
        let outcome = tokio::time::timeout(SOON / 2, self.what_becomes_of(stream)).await;
        outcome.unwrap_or(Outcome::Silence)
    }

    async fn what_becomes_of(&mut self, stream: u32) -> Outcome {
        let mut status = None;
        let mut body = Vec::new();
        loop {
            let Some(frame) = self.next().await else { return Outcome::Closed };
            match frame.kind {
                GOAWAY if frame.number(4) != 0 => return Outcome::GoAway(frame.number(4)),
                RST_STREAM if frame.stream == stream => {
                    let code = frame.number(0);
                    return match status {
                        Some(status) => Outcome::Cut { status, code },
                        None => Outcome::Reset(code),
                    };
                }
                HEADERS if frame.stream == stream => {
                    // What comes behind the body is trailers, and has no status.
                    status = status.or_else(|| Some(status_of(&frame)));
                }
                DATA if frame.stream == stream => body.extend(&frame.payload),
                _ => {}
            }
            if frame.stream == stream
                && matches!(frame.kind, HEADERS | DATA)
                && frame.is(END_STREAM)
            {
                let status = status.unwrap_or_default();
                return Outcome::Answer { status, body };
            }
        }
    }

    /// The code of the GOAWAY with which the gateway ends the connection; none if it just closes.
    pub(crate) async fn goes_away(&mut self) -> Option<u32> {
        while let Some(frame) = self.next().await {
            if frame.kind == GOAWAY && frame.number(4) != 0 {
                return Some(frame.number(4));
            }
        }
        None
    }
}

/// The status in a HEADERS frame: its first field, and by RFC 9113 section 8.3 it is.
fn status_of(frame: &Frame) -> u16 {
    let mut block = frame.payload.as_slice();
    if frame.is(PADDED) {
        block = &block[1..];
    }
    if frame.is(PRIORITY_FLAG) {
        block = &block[5..];
    }
    // A change of the table's size may stand in front (RFC 7541 section 6.3).
    while block.first().is_some_and(|byte| byte & 0xe0 == 0x20) {
        block = &block[1..];
    }
    // Indices 8 to 14 of the static table are `:status` with a value; 8 to 14 also give the name.
    match block {
        [first, ..] if first & 0x80 != 0 => {
            let known = [200, 204, 206, 304, 400, 404, 500];
            let index = usize::from(first & 0x7f);
            index.checked_sub(8).and_then(|at| known.get(at)).copied().unwrap_or(0)
        }
        [_, length, text @ ..] => {
            let text = &text[..usize::from(length & 0x7f)];
            let digits = if length & 0x80 == 0 { text.to_vec() } else { huffman_digits(text) };
            String::from_utf8_lossy(&digits).parse().unwrap_or(0)
        }
        _ => 0,
    }
}

/// Digits in the Huffman code of HPACK: `0` to `2` have five bits, the others six.
fn huffman_digits(text: &[u8]) -> Vec<u8> {
    let bits: Vec<u8> = text.iter().flat_map(|b| (0..8).rev().map(move |at| b >> at & 1)).collect();
    let mut digits = Vec::new();
    let mut rest = bits.as_slice();
    while rest.len() >= 5 {
        let five = rest[..5].iter().fold(0, |number, bit| number << 1 | bit);
        if five <= 2 {
            digits.push(b'0' + five);
            rest = &rest[5..];
        } else if rest.len() >= 6 {
            let six = five << 1 | rest[5];
            // 0x19 is `3`; anything beyond `9` is padding.
            if !(0x19..=0x1f).contains(&six) {
                break;
            }
            digits.push(b'3' + (six - 0x19));
            rest = &rest[6..];
        } else {
            break;
        }
    }
    digits
}

#[test]
fn the_status_is_read_however_it_is_written() {
    let head = |payload: &[u8]| Frame::new(HEADERS, END_HEADERS, 1, payload);
    // (block, status)
    let table: [(&[u8], u16); 5] = [
        (&[0x88], 200),
        (&[0x20, 0x8d], 404),
        (&[0x08, 0x03, b'5', b'0', b'3'], 503),
        // `421` and `431` by Huffman: 011010 00010 00001, 011010 011001 00001, padded with ones.
        (&[0x08, 0x82, 0b0110_1000, 0b0100_0001], 421),
        (&[0x48, 0x83, 0b0110_1001, 0b1001_0000, 0b1111_1111], 431),
    ];
    for (block, want) in table {
        assert_eq!(status_of(&head(block)), want, "{block:x?}");
    }
}
