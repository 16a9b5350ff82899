//! Writers for the parts of a log line: escaped text, numbers, addresses, times. They do not
//! allocate once the buffer is large enough.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, SystemTime};

/// An escape function for bytes from a peer, one for each kind of log format. Its output is
/// printable ASCII.
pub(super) type Escape = fn(&mut Vec<u8>, &[u8]);

/// Writes the inside of a JSON string. Everything but printable ASCII becomes `\uXXXX`. A byte that
/// is not UTF-8 is read as Latin-1, so `\u00ff` may be the byte as well as the character.
pub(super) fn json(out: &mut Vec<u8>, bytes: &[u8]) {
    escape(out, bytes, |out, rest| match rest[0] {
        byte @ (b'"' | b'\\') => {
            out.extend_from_slice(&[b'\\', byte]);
            1
        }
        byte if byte < 0x80 => {
            unicode(out, byte.into());
            1
        }
        byte => match first_char(rest) {
            Some(char) => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    unicode(out, *unit);
                }
                char.len_utf8()
            }
            None => {
                unicode(out, byte.into());
                1
            }
        },
    });
}

/// Writes text with nginx's default escaping: quotes, backslashes and everything but printable
/// ASCII become `\xHH`, byte by byte.
pub(super) fn plain(out: &mut Vec<u8>, bytes: &[u8]) {
    escape(out, bytes, |out, rest| {
        out.extend_from_slice(b"\\x");
        hex(out, rest[0], b"0123456789ABCDEF");
        1
    });
}

/// Writes text of HTML and XML. Markup and everything but printable ASCII become references to
/// characters.
pub(super) fn html(out: &mut Vec<u8>, bytes: &[u8]) {
    for char in String::from_utf8_lossy(bytes).chars() {
        let shown = if char.is_control() { char::REPLACEMENT_CHARACTER } else { char };
        match u8::try_from(shown) {
            Ok(byte) if byte.is_ascii() && !b"<>&\"'".contains(&byte) => out.push(byte),
            _ => {
                out.extend_from_slice(b"&#");
                number(out, u32::from(shown).into());
                out.push(b';');
            }
        }
    }
}

/// Copies the bytes that need no escape. For the others, `one` writes the escape and returns the
/// number of bytes that it consumed.
#[inline]
fn escape(out: &mut Vec<u8>, mut rest: &[u8], one: impl Fn(&mut Vec<u8>, &[u8]) -> usize) {
    loop {
        let clean = clean_prefix(rest);
        out.extend_from_slice(&rest[..clean]);
        rest = &rest[clean..];
        if rest.is_empty() {
            return;
        }
        rest = &rest[one(out, rest)..];
    }
}

/// Returns the number of leading bytes that need no escape in either format.
fn clean_prefix(bytes: &[u8]) -> usize {
    // Most values are clean, so whole chunks are checked first: an inner loop without an early exit
    // compiles to vector instructions. The last chunk overlaps the one before it.
    let clean = match bytes.last_chunk::<16>() {
        Some(last) => is_clean(last) && bytes.as_chunks::<16>().0.iter().all(is_clean),
        None => match (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
            (Some(first), Some(last)) => is_clean(first) && is_clean(last),
            _ => false,
        },
    };
    if clean {
        return bytes.len();
    }
    bytes.iter().take_while(|byte| !is_special(**byte)).count()
}

fn is_clean<const N: usize>(chunk: &[u8; N]) -> bool {
    !chunk.iter().fold(false, |special, byte| special | is_special(*byte))
}

fn is_special(byte: u8) -> bool {
    !(0x20..0x7f).contains(&byte) | (byte == b'"') | (byte == b'\\')
}

fn first_char(bytes: &[u8]) -> Option<char> {
    let longest = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(longest) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&longest[..error.valid_up_to()]).unwrap_or_default(),
    };
    valid.chars().next()
}

fn unicode(out: &mut Vec<u8>, unit: u16) {
    out.extend_from_slice(b"\\u");
    for byte in unit.to_be_bytes() {
        hex(out, byte, b"0123456789abcdef");
    }
}

fn hex(out: &mut Vec<u8>, byte: u8, digits: &[u8; 16]) {
    out.push(digits[usize::from(byte >> 4)]);
    out.push(digits[usize::from(byte & 15)]);
}

/// The two digits of each number below 100.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number as usize] = [b'0' + number / 10, b'0' + number % 10];
        number += 1;
    }
    pairs
};

/// Each byte as a decimal number with a dot after it, padded.
const OCTETS: [[u8; 4]; 256] = {
    let mut octets = [[0; 4]; 256];
    let mut octet = 0_u8;
    loop {
        let digits = [b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10];
        octets[octet as usize] = match octet {
            0..10 => [digits[2], b'.', 0, 0],
            10..100 => [digits[1], digits[2], b'.', 0],
            100.. => [digits[0], digits[1], digits[2], b'.'],
        };
        if octet == u8::MAX {
            break octets;
        }
        octet += 1;
    }
};

pub(super) fn number(out: &mut Vec<u8>, number: u64) {
    if number < 10 {
        out.push(digit(number));
    } else {
        out.extend_from_slice(decimal(&mut [0; 20], number));
    }
}

/// Writes a number to the end of a buffer and returns its digits.
fn decimal(buffer: &mut [u8; 20], mut number: u64) -> &[u8] {
    let mut at = buffer.len();
    while number >= 100 {
        at -= 2;
        buffer[at..at + 2].copy_from_slice(pair(number % 100));
        number /= 100;
    }
    if number < 10 {
        at -= 1;
        buffer[at] = digit(number);
    } else {
        at -= 2;
        buffer[at..at + 2].copy_from_slice(pair(number));
    }
    &buffer[at..]
}

/// Returns the last two decimal digits of `number` in ASCII.
fn pair(number: u64) -> &'static [u8; 2] {
    &PAIRS[usize::try_from(number % 100).unwrap_or(0)]
}

/// Returns the last decimal digit of `number` in ASCII.
fn digit(number: u64) -> u8 {
    pair(number % 10)[1]
}

/// Returns whole milliseconds, as Envoy counts them. JSON events have a `u64` as a number; the 128
/// bits of `Duration::as_millis` would become a string there.
pub(crate) fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Writes milliseconds with three decimals.
pub(super) fn millis(out: &mut Vec<u8>, duration: Duration) {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    number(out, micros / 1000);
    out.push(b'.');
    three_digits(out, micros % 1000);
}

fn three_digits(out: &mut Vec<u8>, number: u64) {
    let [tens, ones] = *pair(number);
    out.extend_from_slice(&[digit(number / 100), tens, ones]);
}

/// Size of the longest IPv4 socket address, in bytes.
const SOCKET_ADDRESS_V4: usize = "255.255.255.255:65535".len();

/// Writes an IP address. An IPv4-mapped IPv6 address is written as IPv4.
pub(super) fn ip(out: &mut Vec<u8>, address: IpAddr) {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let mut buffer = [0; SOCKET_ADDRESS_V4];
            let length = ipv4(&mut buffer, v4);
            out.extend_from_slice(&buffer[..length]);
        }
        // Writing to a Vec cannot fail.
        IpAddr::V6(v6) => drop(write!(out, "{v6}")),
    }
}

pub(super) fn socket_address(out: &mut Vec<u8>, address: SocketAddr) {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => {
            let mut buffer = [0; SOCKET_ADDRESS_V4];
            let colon = ipv4(&mut buffer, v4);
            buffer[colon] = b':';
            let port = colon + 1;
            let mut digits = [0; 20];
            let digits = decimal(&mut digits, address.port().into());
            let end = port + digits.len();
            buffer[port..end].copy_from_slice(digits);
            out.extend_from_slice(&buffer[..end]);
        }
        // Writing to a Vec cannot fail.
        IpAddr::V6(v6) => drop(write!(out, "[{v6}]:{}", address.port())),
    }
}

/// An IP address, with its text as [`ip`] writes it if that is at hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownIp<'t> {
    pub address: IpAddr,
    pub text: Option<&'t [u8]>,
}

impl KnownIp<'_> {
    pub(super) fn write(self, out: &mut Vec<u8>) {
        match self.text {
            Some(text) => out.extend_from_slice(text),
            None => ip(out, self.address),
        }
    }

    pub(super) fn write_with_port(self, out: &mut Vec<u8>, port: u16) {
        let Some(text) = self.text else {
            return socket_address(out, (self.address, port).into());
        };
        if self.address.to_canonical().is_ipv6() {
            out.push(b'[');
            out.extend_from_slice(text);
            out.push(b']');
        } else {
            out.extend_from_slice(text);
        }
        out.push(b':');
        number(out, port.into());
    }
}

/// Writes an IPv4 address to the start of a buffer and returns its length.
fn ipv4(buffer: &mut [u8; SOCKET_ADDRESS_V4], address: Ipv4Addr) -> usize {
    let mut at = 0;
    for octet in address.octets() {
        buffer[at..at + 4].copy_from_slice(&OCTETS[usize::from(octet)]);
        at += 2 + usize::from(octet >= 10) + usize::from(octet >= 100);
    }
    // Without the last dot.
    at - 1
}

/// A writer of times: RFC 3339 in UTC with milliseconds. Caches the text of the last second.
#[derive(Debug)]
pub(super) struct Stamp {
    /// `u64::MAX` before first use.
    second: u64,
    /// The second up to its decimal point: `2026-09-14T12:00:00.`
    text: [u8; 20],
}

impl Stamp {
    pub(super) const fn new() -> Self {
        Self { second: u64::MAX, text: [b'-'; 20] }
    }

    /// Writes a time. A time before 1970 is written as the start of 1970.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, time: SystemTime) {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        if since.as_secs() != self.second {
            self.second = since.as_secs();
            let second = i64::try_from(self.second).unwrap_or(i64::MAX);
            let timestamp = jiff::Timestamp::from_second(second).unwrap_or(jiff::Timestamp::MAX);
            // All years from 1970 to the last one have four digits, so the text fits.
            let _ = write!(&mut self.text[..], "{timestamp:.0}");
            self.text[19] = b'.';
        }
        out.extend_from_slice(&self.text);
        let millis = u64::from(since.subsec_millis());
        let [tens, ones] = *pair(millis);
        out.extend_from_slice(&[digit(millis / 100), tens, ones, b'Z']);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_peers_bytes_stay_within_their_field() {
        // (bytes, in JSON, in text)
        let table: [(&[u8], &str, &str); 10] = [
            (b"curl/8.0", "curl/8.0", "curl/8.0"),
            (b"a\"b", r#"a\"b"#, r"a\x22b"),
            (br"a\b", r"a\\b", r"a\x5Cb"),
            (b"a\r\nb", r"a\u000d\u000ab", r"a\x0D\x0Ab"),
            (b"\x1b[31m\x07\0", r"\u001b[31m\u0007\u0000", r"\x1B[31m\x07\x00"),
            (b"\x7f", r"\u007f", r"\x7F"),
            (
                "é€😀".as_bytes(),
                r"\u00e9\u20ac\ud83d\ude00",
                r"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80",
            ),
            (b"\xff\xc3", r"\u00ff\u00c3", r"\xFF\xC3"),
            // C1 control, right-to-left override, line separator.
            (
                "\u{9b}\u{202e}\u{2028}".as_bytes(),
                r"\u009b\u202e\u2028",
                r"\xC2\x9B\xE2\x80\xAE\xE2\x80\xA8",
            ),
            (b"", "", ""),
        ];
        for (bytes, want_json, want_plain) in table {
            assert_eq!(written(|out| json(out, bytes)), want_json);
            assert_eq!(written(|out| plain(out, bytes)), want_plain);
        }
    }

    #[test]
    fn a_special_byte_is_found_wherever_it_stands() {
        for length in 1..70 {
            for at in 0..length {
                let mut bytes = vec![b'a'; length];
                bytes[at] = b'\n';
                let text = written(|out| json(out, &bytes));
                let value: String = serde_json::from_str(&format!("\"{text}\"")).unwrap();
                assert_eq!(value.as_bytes(), bytes);
                assert!(!text.contains('\n'));
            }
        }
    }

    #[test]
    fn numbers_and_durations_are_exact() {
        for value in [0, 7, 9, 10, 42, 99, 100, 101, 999, 1000, 65_535, 123_456_789, u64::MAX] {
            assert_eq!(written(|out| number(out, value)), value.to_string());
        }
        // (microseconds, text)
        let table = [(0, "0.000"), (7, "0.007"), (1_050, "1.050"), (12_345_678, "12345.678")];
        for (micros, want) in table {
            assert_eq!(written(|out| millis(out, Duration::from_micros(micros))), want);
        }
    }

    #[test]
    fn addresses_read_as_people_write_them() {
        let table = [
            ("203.0.113.9:80", "203.0.113.9:80"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
            ("[::ffff:203.0.113.9]:80", "203.0.113.9:80"),
            ("0.9.10.99:0", "0.9.10.99:0"),
            ("100.101.199.200:9", "100.101.199.200:9"),
            ("255.255.255.255:65535", "255.255.255.255:65535"),
            ("[::]:0", "[::]:0"),
        ];
        for (address, want) in table {
            assert_eq!(written(|out| socket_address(out, address.parse().unwrap())), want);
        }
    }

    #[test]
    fn times_are_rfc_3339_and_the_remembered_second_is_the_right_one() {
        let mut stamp = Stamp::new();
        // (milliseconds since 1970, text)
        let table = [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_789_387_200_001, "2026-09-14T12:00:00.001Z"),
            (1_789_387_200_999, "2026-09-14T12:00:00.999Z"),
            (1_789_387_201_000, "2026-09-14T12:00:01.000Z"),
            (1_709_210_096_789, "2024-02-29T12:34:56.789Z"),
        ];
        for (millis, want) in table {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
            assert_eq!(written(|out| stamp.write(out, time)), want);
        }
        let early = SystemTime::UNIX_EPOCH - Duration::from_secs(9);
        assert_eq!(written(|out| stamp.write(out, early)), "1970-01-01T00:00:00.000Z");
    }
}
