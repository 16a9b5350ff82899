//! TLS by the record, for what no honest client sends (RFC 8446, RFC 5246).

use std::net::SocketAddr;

use super::Wire;

pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const ALERT: u8 = 21;

/// A record around `payload`.
pub(crate) fn record(kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind, 3, 1], &length[..], payload].concat()
}

/// A ClientHello, part by part.
#[derive(Clone, Debug)]
pub(crate) struct Hello {
    /// `legacy_version`: 0x0303 is TLS 1.2, and what 1.3 says too.
    pub version: u16,
    pub suites: Vec<u16>,
    /// Number and content.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

impl Hello {
    /// What a client of today says to `name`: TLS 1.3 or 1.2.
    pub(crate) fn modern(name: &str) -> Self {
        let mut hello = Self::tls12(name);
        hello.suites.splice(0..0, [0x1301, 0x1302, 0x1303]);
        // supported_versions: 1.3, 1.2; key_share: none yet, the server may ask.
        hello.extensions.push((43, vec![4, 3, 4, 3, 3]));
        hello.extensions.push((51, vec![0, 0]));
        hello
    }

    /// A good client of TLS 1.2 alone.
    pub(crate) fn tls12(name: &str) -> Self {
        Self {
            version: 0x0303,
            suites: vec![0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8],
            extensions: vec![
                server_name(&[name.as_bytes()]),
                // supported_groups: x25519, secp256r1, secp384r1.
                (10, vec![0, 6, 0, 29, 0, 23, 0, 24]),
                // ec_point_formats: uncompressed.
                (11, vec![1, 0]),
                // signature_algorithms: ECDSA and RSA-PSS with SHA-256, RSA with SHA-256.
                (13, vec![0, 6, 4, 3, 8, 4, 4, 1]),
                // extended_master_secret, renegotiation_info.
                (23, vec![]),
                (0xff01, vec![0]),
            ],
        }
    }

    /// The extension `number` with another content; none if that is `None`.
    pub(crate) fn with(mut self, number: u16, content: Option<Vec<u8>>) -> Self {
        self.extensions.retain(|(known, _)| *known != number);
        self.extensions.extend(content.map(|content| (number, content)));
        self
    }

    /// The handshake message.
    pub(crate) fn message(&self) -> Vec<u8> {
        let mut body = self.version.to_be_bytes().to_vec();
        body.extend([7; 32]);
        // A session identifier, as middleboxes expect it.
        body.push(32);
        body.extend([9; 32]);
        let suites: Vec<u8> = self.suites.iter().flat_map(|suite| suite.to_be_bytes()).collect();
        body.extend(prefixed(&suites));
        body.extend([1, 0]);
        let extensions: Vec<u8> = self
            .extensions
            .iter()
            .flat_map(|(number, content)| {
                [number.to_be_bytes().to_vec(), prefixed(content)].concat()
            })
            .collect();
        body.extend(prefixed(&extensions));
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        [&[1], &length[1..], &body].concat()
    }

    /// The message in records of at most `size` bytes.
    pub(crate) fn records(&self, size: usize) -> Vec<u8> {
        self.message().chunks(size).flat_map(|part| record(HANDSHAKE, part)).collect()
    }

    /// The message in one record, or in as many as it needs.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.records(16 << 10)
    }
}

/// The extension that names `names`.
pub(crate) fn server_name(names: &[&[u8]]) -> (u16, Vec<u8>) {
    let entries: Vec<u8> = names.iter().flat_map(|n| [vec![0], prefixed(n)].concat()).collect();
    (0, prefixed(&entries))
}

fn prefixed(content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&length, content].concat()
}

/// The first thing that a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    Handshake(Vec<u8>),
    /// The number of the alert.
    Alert(u8),
    /// A record of another kind, or no record at all.
    Other(Vec<u8>),
    Closed,
}

impl Record {
    /// What `address` says to `bytes`.
    pub(crate) async fn answer_to(address: SocketAddr, bytes: &[u8]) -> Self {
        let mut wire = Wire::connect(address).await;
        wire.send(bytes).await;
        Self::read(&mut wire).await
    }

    pub(crate) async fn read(wire: &mut Wire) -> Self {
        let head = wire.exactly(5).await;
        let [kind, 3, _, high, low] = head.as_slice() else {
            return if head.is_empty() { Self::Closed } else { Self::Other(head) };
        };
        let payload = wire.exactly(usize::from(u16::from_be_bytes([*high, *low]))).await;
        match (*kind, payload.as_slice()) {
            (HANDSHAKE, _) => Self::Handshake(payload),
            (ALERT, [_, code]) => Self::Alert(*code),
            _ => Self::Other(payload),
        }
    }

    /// The extensions of a ServerHello of TLS 1.2, and the last bytes of its random.
    pub(crate) fn server_hello(&self) -> (Vec<u16>, [u8; 8]) {
        let Self::Handshake(message) = self else { panic!("{self:?} is not a ServerHello") };
        assert_eq!(message[0], 2, "a ServerHello");
        let number = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
        // Type and length, version, random, then the session identifier with its length.
        let random = message[4 + 2 + 24..4 + 2 + 32].try_into().unwrap();
        let session = 4 + 2 + 32;
        let mut at = session + 1 + usize::from(message[session]) + 3;
        let end = at + 2 + usize::from(number(at));
        at += 2;
        let mut extensions = Vec::new();
        while at < end {
            extensions.push(number(at));
            at += 4 + usize::from(number(at + 2));
        }
        (extensions, random)
    }
}
