//! Refusal of pseudo-header fields in the trailers of HTTP/2 requests.
//!
//! Such fields make a request malformed (RFC 9113 section 8.1). h2 drops them and exposes neither
//! the fields nor the frame, so this module also parses frame heads and the fields of HEADERS, on
//! their way to h2. If trailers begin with a pseudo-header field, this module clears their
//! END_STREAM flag, and h2 resets the stream with PROTOCOL_ERROR, because it refuses trailers that
//! do not end a stream. h2 itself refuses a pseudo-header field after a regular field. The fields
//! reach h2 unchanged, so that its dynamic table stays in step with the peer's.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Length of a frame head in bytes (RFC 9113 section 4.1), the frame types that carry fields, and
/// their flags.
const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The largest frame payload that h2 accepts from a peer by default, in bytes.
const LARGEST: usize = 16 << 10;

/// Length of the client preface in bytes (RFC 9113 section 3.4).
const PREFACE: usize = 24;

/// Number of entries in HPACK's static table (RFC 7541 appendix A), and of the pseudo-header fields
/// at its start.
const STATIC: u32 = 61;
const STATIC_PSEUDO: u32 = 14;

/// An HTTP/2 connection from its first byte on, whose frames are inspected as they arrive.
#[derive(Debug)]
pub(super) struct FrameFilter<S> {
    stream: S,
    scan: TrailerScan,
    /// Bytes that the scan cannot decide on yet: less than a frame.
    held: Vec<u8>,
    /// Inspected bytes that the reader had no room for yet.
    passed: Bytes,
}

impl<S> FrameFilter<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, scan: TrailerScan::default(), held: Vec::new(), passed: Bytes::new() }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FrameFilter<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if !this.passed.is_empty() || buffer.remaining() == 0 {
                let fits = this.passed.len().min(buffer.remaining());
                buffer.put_slice(&this.passed[..fits]);
                this.passed.advance(fits);
                return Poll::Ready(Ok(()));
            }
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            let came = &mut buffer.filled_mut()[before..];
            if came.is_empty() && this.held.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if came.is_empty() {
                // End of the stream. h2 handles the incomplete frame.
                this.passed = std::mem::take(&mut this.held).into();
            } else if this.held.is_empty() {
                let passed = this.scan.pass(came);
                this.held.extend_from_slice(&came[passed..]);
                buffer.set_filled(before + passed);
                if passed > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                this.held.extend_from_slice(came);
                buffer.set_filled(before);
                let passed = this.scan.pass(&mut this.held);
                this.passed = this.held.drain(..passed).collect::<Vec<_>>().into();
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FrameFilter<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Parser that follows the frames of a connection, in pieces of any size.
#[derive(Debug)]
struct TrailerScan {
    place: FramePosition,
    /// The highest stream that was opened. HEADERS of a stream up to it are trailers.
    opened: u32,
    /// The head of that stream ended it, so that it has no trailers: h2 refuses further HEADERS with
    /// STREAM_CLOSED.
    ended: bool,
    fields: HpackFields,
}

#[derive(Clone, Copy, Debug)]
enum FramePosition {
    /// Skip this many bytes.
    Skip(usize),
    Head,
    /// Read this many bytes of fields, then skip this many bytes of padding.
    Fragment(usize, usize),
}

impl Default for TrailerScan {
    fn default() -> Self {
        let fields = HpackFields::default();
        Self { place: FramePosition::Skip(PREFACE), opened: 0, ended: false, fields }
    }
}

impl TrailerScan {
    /// Parses `bytes` and marks trailers that must be refused. Returns the number of bytes that may
    /// be passed on; the caller must pass the others again, with more bytes behind them.
    fn pass(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            match self.place {
                FramePosition::Skip(left) => {
                    let skipped = left.min(bytes.len() - at);
                    at += skipped;
                    self.place = match left - skipped {
                        0 => FramePosition::Head,
                        left => FramePosition::Skip(left),
                    };
                }
                FramePosition::Fragment(left, padding) => {
                    let read = left.min(bytes.len() - at);
                    self.fields.read(&bytes[at..at + read]);
                    at += read;
                    self.place = match left - read {
                        0 if padding == 0 => FramePosition::Head,
                        0 => FramePosition::Skip(padding),
                        left => FramePosition::Fragment(left, padding),
                    };
                }
                FramePosition::Head => match self.head(&mut bytes[at..]) {
                    Some(read) => at += read,
                    None => return at,
                },
            }
        }
        at
    }

    /// Parses the head of a frame and the part before its fields; `None` if it is incomplete.
    fn head(&mut self, bytes: &mut [u8]) -> Option<usize> {
        let head: [u8; FRAME_HEAD] = bytes.get(..FRAME_HEAD)?.try_into().ok()?;
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
        let length = usize::from(l0) << 16 | usize::from(l1) << 8 | usize::from(l2);
        let stream = u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]);
        if kind == CONTINUATION {
            self.place = FramePosition::Fragment(length, 0);
            return Some(self.begun(FRAME_HEAD));
        }
        if kind != HEADERS {
            self.place = FramePosition::Skip(length);
            return Some(self.begun(FRAME_HEAD));
        }
        let is = |flag: u8| flags & flag != 0;
        let before = usize::from(is(PADDED)) + if is(PRIORITY) { 5 } else { 0 };
        if length < before || length > LARGEST {
            // h2 closes the connection.
            self.place = FramePosition::Skip(length);
            return Some(self.begun(FRAME_HEAD));
        }
        let fields = FRAME_HEAD + before;
        let padding = if is(PADDED) { usize::from(*bytes.get(FRAME_HEAD)?) } else { 0 };
        let fragment = (length - before).saturating_sub(padding);
        let has_ended = stream == self.opened && self.ended;
        if stream <= self.opened && !has_ended && is(END_STREAM) {
            let there = bytes.get(fields..)?;
            let there = &there[..fragment.min(there.len())];
            match self.fields.first_is_pseudo(there) {
                Some(true) => bytes[4] &= !END_STREAM,
                Some(false) => {}
                None if there.len() < fragment => return None,
                // The first field is in another frame. No peer has a reason to send that.
                None if !is(END_HEADERS) => bytes[4] &= !END_STREAM,
                None => {}
            }
        }
        if bytes.len() < fields {
            return None;
        }
        if stream > self.opened {
            (self.opened, self.ended) = (stream, is(END_STREAM));
        }
        self.fields.begin();
        self.place = FramePosition::Fragment(fragment, padding.min(length - before));
        Some(self.begun(fields))
    }

    /// Advances the position past a frame or fragment that is empty.
    fn begun(&mut self, read: usize) -> usize {
        self.place = match self.place {
            FramePosition::Skip(0) | FramePosition::Fragment(0, 0) => FramePosition::Head,
            FramePosition::Fragment(0, padding) => FramePosition::Skip(padding),
            place => place,
        };
        read
    }
}

/// HPACK parser for successive field blocks (RFC 7541 section 6). It parses only what is needed to
/// recognise pseudo-header fields.
#[derive(Debug, Default)]
struct HpackFields {
    step: HpackStep,
    /// The current literal field is added to the dynamic table.
    inserts: bool,
    /// Marks the entries of the dynamic table that are pseudo-header fields, the newest in the
    /// lowest bit. The table has 4,096 bytes, so at most 128 entries; h2 refuses the index of an
    /// entry that was evicted.
    table: u128,
}

#[derive(Clone, Copy, Debug, Default)]
enum HpackStep {
    #[default]
    Field,
    /// Inside a number: its value so far, and the bit position of its next seven bits.
    HpackNumber(HpackNumber, u32, u32),
    /// Before the length of a string.
    Length(HpackText),
    /// Before the first byte of a name of this length; `true` if it is Huffman-coded.
    Name(u32, bool),
    /// Inside a string, with this many bytes left.
    Rest(HpackText, u32),
    /// Invalid encoding, for which h2 closes the connection.
    Broken,
}

#[derive(Clone, Copy, Debug)]
enum HpackNumber {
    Index,
    /// The index of a literal field's name; 0 if the name follows.
    NameIndex,
    TableSize,
    /// `true` if the string is Huffman-coded.
    Length(HpackText, bool),
}

#[derive(Clone, Copy, Debug)]
enum HpackText {
    Name,
    Value,
}

impl HpackFields {
    /// Resets the parser before the first field of a block.
    fn begin(&mut self) {
        if !matches!(self.step, HpackStep::Broken) {
            self.step = HpackStep::Field;
        }
    }

    /// Returns true if a field block that begins with `bytes` begins with a pseudo-header field;
    /// `None` if `bytes` are too short to decide.
    fn first_is_pseudo(&self, bytes: &[u8]) -> Option<bool> {
        let mut ahead = Self { table: self.table, ..Self::default() };
        bytes.iter().find_map(|byte| ahead.read_byte(*byte))
    }

    fn read(&mut self, mut bytes: &[u8]) {
        while let Some((byte, rest)) = bytes.split_first() {
            if let HpackStep::Rest(text, left) = self.step {
                let skipped = (left as usize).min(bytes.len());
                bytes = &bytes[skipped..];
                self.rest(text, left - u32::try_from(skipped).unwrap_or(left));
                continue;
            }
            self.read_byte(*byte);
            bytes = rest;
        }
    }

    /// Parses one byte. Returns whether the field is a pseudo-header field once its name is known.
    fn read_byte(&mut self, byte: u8) -> Option<bool> {
        match self.step {
            HpackStep::Field if byte & 0x80 != 0 => self.number(HpackNumber::Index, byte, 7),
            HpackStep::Field if byte & 0x40 != 0 => {
                self.inserts = true;
                self.number(HpackNumber::NameIndex, byte, 6)
            }
            HpackStep::Field if byte & 0x20 != 0 => self.number(HpackNumber::TableSize, byte, 5),
            HpackStep::Field => {
                self.inserts = false;
                self.number(HpackNumber::NameIndex, byte, 4)
            }
            HpackStep::HpackNumber(number, so_far, place) => {
                // Same bound as in h2: no number in a field block is larger.
                if place > 21 {
                    self.step = HpackStep::Broken;
                    return None;
                }
                let value = so_far + (u32::from(byte & 0x7f) << place);
                if byte & 0x80 == 0 {
                    return self.known(number, value);
                }
                self.step = HpackStep::HpackNumber(number, value, place + 7);
                None
            }
            HpackStep::Length(text) => {
                self.number(HpackNumber::Length(text, byte & 0x80 != 0), byte, 7)
            }
            HpackStep::Name(length, compressed) => {
                // `:` in HPACK's Huffman code is 1011100.
                let is_pseudo = if compressed { byte >> 1 == 0b101_1100 } else { byte == b':' };
                self.rest(HpackText::Name, length - 1);
                Some(self.named(is_pseudo))
            }
            HpackStep::Rest(text, left) => {
                self.rest(text, left - 1);
                None
            }
            HpackStep::Broken => None,
        }
    }

    /// Parses a number that begins in the lower `bits` of `byte` (RFC 7541 section 5.1).
    fn number(&mut self, number: HpackNumber, byte: u8, bits: u32) -> Option<bool> {
        let most = (1_u32 << bits) - 1;
        let value = u32::from(byte) & most;
        if value < most {
            return self.known(number, value);
        }
        self.step = HpackStep::HpackNumber(number, value, 0);
        None
    }

    fn known(&mut self, number: HpackNumber, value: u32) -> Option<bool> {
        match number {
            HpackNumber::Index => {
                self.step = HpackStep::Field;
                Some(self.is_pseudo(value))
            }
            HpackNumber::TableSize => {
                self.step = HpackStep::Field;
                None
            }
            HpackNumber::NameIndex if value == 0 => {
                self.step = HpackStep::Length(HpackText::Name);
                None
            }
            HpackNumber::NameIndex => {
                self.step = HpackStep::Length(HpackText::Value);
                Some(self.named(self.is_pseudo(value)))
            }
            HpackNumber::Length(HpackText::Name, _) if value == 0 => {
                self.step = HpackStep::Length(HpackText::Value);
                Some(self.named(false))
            }
            HpackNumber::Length(HpackText::Name, compressed) => {
                self.step = HpackStep::Name(value, compressed);
                None
            }
            HpackNumber::Length(HpackText::Value, _) => {
                self.rest(HpackText::Value, value);
                None
            }
        }
    }

    fn rest(&mut self, text: HpackText, left: u32) {
        self.step = match (text, left) {
            (HpackText::Name, 0) => HpackStep::Length(HpackText::Value),
            (HpackText::Value, 0) => HpackStep::Field,
            (text, left) => HpackStep::Rest(text, left),
        };
    }

    /// Records the name of a literal field.
    fn named(&mut self, is_pseudo: bool) -> bool {
        if self.inserts {
            self.table = self.table << 1 | u128::from(is_pseudo);
        }
        is_pseudo
    }

    fn is_pseudo(&self, index: u32) -> bool {
        match index.checked_sub(STATIC + 1) {
            None => (1..=STATIC_PSEUDO).contains(&index),
            Some(place) => self.table.checked_shr(place).is_some_and(|table| table & 1 == 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let head = [0, length[0], length[1], kind, flags, 0, 0, 0, stream];
        [&head[..], payload].concat()
    }

    /// GET, https, and two literals that are added to the dynamic table: the path and another
    /// field.
    const HEAD: &[u8] = b"\x82\x87\x44\x02/a\x40\x03x-b\x01c";

    /// Returns the bytes that pass, with the input in pieces of `size`.
    fn pass(bytes: &[u8], size: usize) -> Vec<u8> {
        let mut scan = TrailerScan::default();
        let (mut passed, mut held) = (Vec::new(), Vec::new());
        for piece in bytes.chunks(size) {
            held.extend_from_slice(piece);
            let count = scan.pass(&mut held);
            passed.extend(held.drain(..count));
        }
        assert!(held.is_empty(), "{held:?}");
        passed
    }

    #[test]
    fn trailers_that_begin_with_a_pseudo_field_do_not_end_their_stream() {
        const END: u8 = END_HEADERS | END_STREAM;
        // (flags, payload of the trailers, refused)
        let table: [(u8, &[u8], bool); 24] = [
            // By the static table: `:path: /`, `:status: 200`, and regular fields.
            (END, b"\x84", true),
            (END, b"\x88", true),
            (END, b"\x90", false),
            (END, b"\xbd", false),
            // By the dynamic table: `x-b`, then `:path`, then entries that do not exist.
            (END, b"\xbe", false),
            (END, b"\xbf", true),
            (END, b"\xc0", false),
            (END, b"\xff\x80\x01", false),
            // Names by index.
            (END, b"\x04\x02/x", true),
            (END, b"\x14\x02/x", true),
            (END, b"\x44\x02/x", true),
            (END, b"\x0f\x30\x01x", true),
            (END, b"\x0f\x2f\x01x", false),
            (END, b"\x0f\x2a\x01x", false),
            // Literal names, and Huffman-coded `:path` and `x-a`.
            (END, b"\x00\x05:path\x02/x", true),
            (END, b"\x00\x03x-a\x01b", false),
            (END, b"\x00\x00\x01b", false),
            (END, b"\x00\x84\xb9\x58\xd3\x3f\x01b", true),
            (END, b"\x00\x83\xf2\xb0\xff\x01b", false),
            // After a table size update, which is not a field.
            (END, b"\x20\x3f\xe1\x1f\x84", true),
            (END, b"\x20", false),
            (END, b"", false),
            // The first field is not in this frame.
            (END_STREAM, b"\x20", true),
            (END_STREAM, b"", true),
        ];
        for (flags, block, refused) in table {
            let padded = [&[3, 0, 0, 0, 0, 16][..], block, &[0; 3]].concat();
            for (flags, payload) in [(flags, block.to_vec()), (flags | PADDED | PRIORITY, padded)] {
                let more = frame(CONTINUATION, END_HEADERS, 1, b"\x90");
                let parts = [
                    vec![b'P'; PREFACE],
                    frame(HEADERS, END_HEADERS, 1, &HEAD[..3]),
                    frame(CONTINUATION, END_HEADERS, 1, &HEAD[3..]),
                    frame(0, 0, 1, b"\x84\x84"),
                    frame(HEADERS, flags, 1, &payload),
                    if flags & END_HEADERS == 0 { more } else { Vec::new() },
                    // Another request keeps its END_STREAM.
                    frame(HEADERS, END, 3, b"\x82\x87\xbf"),
                ];
                let at: usize = parts[..4].iter().map(Vec::len).sum::<usize>() + 4;
                let bytes = parts.concat();
                let mut want = bytes.clone();
                want[at] = if refused { flags & !END_STREAM } else { flags };
                for size in [1, 2, 3, 7, 16, 1000] {
                    assert!(pass(&bytes, size) == want, "{flags} {payload:x?} by {size}");
                }
            }
        }
    }

    /// RFC 9113 section 5.1, "half-closed (remote)": h2 knows the error.
    #[test]
    fn a_stream_that_its_head_has_ended_has_no_trailers() {
        const END: u8 = END_HEADERS | END_STREAM;
        let bytes = [
            vec![b'P'; PREFACE],
            frame(HEADERS, END, 1, HEAD),
            frame(HEADERS, END, 1, b"\x84"),
            frame(HEADERS, END, 1, b"\x84"),
        ]
        .concat();
        for size in [1, 7, 1000] {
            assert!(pass(&bytes, size) == bytes, "by {size}");
        }
        // The next stream is another one.
        let next = [frame(HEADERS, END_HEADERS, 3, HEAD), frame(HEADERS, END, 3, b"\x84")].concat();
        let passed = pass(&[&bytes[..], &next].concat(), 1000);
        assert_eq!(passed[passed.len() - 6..], [END_HEADERS, 0, 0, 0, 3, 0x84]);
    }

    #[tokio::test]
    async fn a_connection_is_read_as_it_is_whatever_room_its_reader_has() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let parts = [
            vec![b'P'; PREFACE],
            frame(HEADERS, END_HEADERS, 1, HEAD),
            frame(0, 0, 1, &[b'x'; 3000]),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x84"),
            // The connection ends within a frame.
            frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x84")[..9].to_vec(),
        ];
        let mut want = parts.concat();
        let at: usize = parts[..3].iter().map(Vec::len).sum::<usize>() + 4;
        want[at] = END_HEADERS;
        for (size, room) in [(1, 1), (1, 100), (7, 2), (10_000, 1), (10_000, 10_000)] {
            let (ours, mut theirs) = tokio::io::duplex(64);
            let bytes = parts.concat();
            let write = async move {
                for piece in bytes.chunks(size) {
                    theirs.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
            };
            let read = async {
                let (mut stream, mut all) = (FrameFilter::new(ours), Vec::new());
                let mut buffer = vec![0; room];
                loop {
                    match stream.read(&mut buffer).await.unwrap() {
                        0 => return all,
                        length => all.extend_from_slice(&buffer[..length]),
                    }
                }
            };
            let (all, ()) = tokio::join!(read, write);
            assert!(all == want, "{size} {room}");
        }
    }

    #[test]
    fn what_h2_ends_the_connection_for_passes_as_it_is() {
        let table = [
            frame(HEADERS, END_STREAM | END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff"),
            frame(HEADERS, PADDED, 1, b""),
            frame(HEADERS, PADDED, 1, b"\xff\x84"),
            frame(HEADERS, PRIORITY, 1, b"\x00"),
            [&[1, 0, 0, HEADERS, 5, 0, 0, 0, 1][..], &[0x20; 70_000]].concat(),
        ];
        for bytes in table {
            let twice = [&[b'P'; PREFACE][..], &bytes, &bytes].concat();
            for size in [1, 5, 100_000] {
                assert!(pass(&twice, size) == twice, "{:x?}", &bytes[..9]);
            }
        }
    }
}
