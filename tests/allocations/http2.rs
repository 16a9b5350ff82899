//! A client of HTTP/2, as much of it as one request at a time needs.

use crate::HOST;
use crate::client::{Client, Kind, Stream};

/// Frame types (RFC 9113 section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

/// Flags of them.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(crate) struct Http2 {
    stream: Box<dyn Stream>,
    /// Of the next request.
    id: u32,
}

impl Http2 {
    /// Sends the preface, too.
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        let mut client = Self { stream, id: 1 };
        client.stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        client.send(SETTINGS, 0, 0, &[]);
        // Room for all bodies there will be.
        client.send(WINDOW_UPDATE, 0, 0, &0x7000_0000_u32.to_be_bytes());
        client
    }

    fn send(&mut self, kind: u8, flags: u8, id: u32, payload: &[u8]) {
        let mut frame = Vec::with_capacity(9 + payload.len());
        let length = u32::try_from(payload.len()).unwrap();
        frame.extend_from_slice(&length.to_be_bytes()[1..]);
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&id.to_be_bytes());
        frame.extend_from_slice(payload);
        self.stream.write_all(&frame).unwrap();
    }

    /// The next frame: its type, its flags, its stream and its payload.
    fn receive(&mut self) -> (u8, u8, u32, Vec<u8>) {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).unwrap();
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
        self.stream.read_exact(&mut payload).unwrap();
        (kind, flags, u32::from_be_bytes(id), payload)
    }
}

impl Client for Http2 {
    fn exchange(&mut self, kind: Kind) {
        // `:method: GET` and `:scheme: http` of the static table, `:path` and `:authority` as literals
        // without indexing (RFC 7541 section 6.2.2).
        let mut block = vec![0x82, 0x86];
        for (name, value) in [(4, kind.path()), (1, HOST)] {
            block.extend_from_slice(&[name, u8::try_from(value.len()).unwrap()]);
            block.extend_from_slice(value.as_bytes());
        }
        let request = self.id;
        self.id += 2;
        self.send(HEADERS, END_HEADERS | END_STREAM, request, &block);
        let mut body = Vec::new();
        loop {
            let (frame, flags, id, payload) = self.receive();
            match frame {
                SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => self.send(PING, ACK, 0, &payload),
                DATA if id == request => body.extend_from_slice(&payload),
                HEADERS | SETTINGS | PING | WINDOW_UPDATE => {}
                other => panic!("a frame of type {other}: {payload:?}"),
            }
            if matches!(frame, DATA | HEADERS) && id == request && flags & END_STREAM != 0 {
                break;
            }
        }
        assert_eq!(body, kind.body());
    }
}
