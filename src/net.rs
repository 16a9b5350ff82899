//! Hostnames, address ranges, and address pools.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::str::FromStr;

use ipnet::IpNet;

/// Header fields that frame an HTTP message (RFC 9110 section 7.6.1, RFC 9112 section 6): changing one
/// would change where the message ends for its reader.
pub(crate) const FRAMING_FIELDS: [&str; 9] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// A hostname of a listener or route: exact, or with one leading wildcard label.
///
/// Gateway API `Hostname`, RFC 1123 section 2.1: lower case, no port, no IP address, and `*` only
/// as the whole first label. [`HostPattern::parse`] is the only way to create one, so a
/// `HostPattern` is always one of the two forms that the router indexes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct HostPattern(Form);

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Form {
    Exact(Box<str>),
    /// The part after `*`, dot included: `*.example.com` is stored as `.example.com`.
    Suffix(Box<str>),
}

impl HostPattern {
    /// Parses a `Hostname` field.
    ///
    /// # Errors
    ///
    /// The faulty label and the reason; the caller adds file and line.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidHost> {
        let (wildcard, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if text.len() > 253 {
            return Err(InvalidHost::TooLong);
        }
        if rest.parse::<IpAddr>().is_ok() {
            return Err(InvalidHost::IpAddress);
        }
        for label in rest.split('.') {
            check_label(label)?;
        }
        Ok(Self(if wildcard {
            Form::Suffix(format!(".{rest}").into())
        } else {
            Form::Exact(rest.into())
        }))
    }

    /// True if the pattern matches `host` (already lower case, port removed).
    ///
    /// `*.example.com` matches `a.example.com` and `a.b.example.com`, never `example.com`.
    pub(crate) fn accepts(&self, host: &str) -> bool {
        match &self.0 {
            Form::Exact(name) => **name == *host,
            Form::Suffix(suffix) => host.len() > suffix.len() && host.ends_with(&**suffix),
        }
    }

    /// Returns the intersection of two patterns, if any: the more specific of the two.
    ///
    /// HTTPRoute `hostnames`: the intersection of `test.example.com` and `*.example.com` is
    /// `test.example.com`.
    pub(crate) fn intersect(&self, other: &Self) -> Option<Self> {
        match (&self.0, &other.0) {
            (Form::Exact(a), _) if other.accepts(a) => Some(self.clone()),
            (_, Form::Exact(b)) if self.accepts(b) => Some(other.clone()),
            (Form::Suffix(a), Form::Suffix(b)) if a.ends_with(&**b) => Some(self.clone()),
            (Form::Suffix(a), Form::Suffix(b)) if b.ends_with(&**a) => Some(other.clone()),
            _ => None,
        }
    }

    /// Returns the name, if this is not a wildcard.
    pub(crate) fn exact(&self) -> Option<&str> {
        match &self.0 {
            Form::Exact(name) => Some(name),
            Form::Suffix(_) => None,
        }
    }

    /// Returns the part after the `*`, dot included, if this is a wildcard.
    pub(crate) fn suffix(&self) -> Option<&str> {
        match &self.0 {
            Form::Exact(_) => None,
            Form::Suffix(suffix) => Some(suffix),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Form::Exact(name) => f.write_str(name),
            Form::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// True for an address that is reachable from the internet.
pub(crate) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            let shared = first == 100 && (64..128).contains(&second);
            let local = v4.is_private() || v4.is_loopback() || v4.is_link_local();
            !local && !shared && !v4.is_unspecified()
        }
        IpAddr::V6(v6) => v6.segments()[0] & 0xe000 == 0x2000,
    }
}

/// Returns a name as in DNS: `bücher.example` is `xn--bcher-kva.example`. `None` if it is ASCII
/// already.
///
/// Of IDNA it implements lower case alone: the result is a hint for a person, and is never looked
/// up.
pub(crate) fn in_ascii(name: &str) -> Option<String> {
    if name.is_ascii() {
        return None;
    }
    let label = |label: &str| match label.is_ascii() {
        true => label.to_ascii_lowercase(),
        false => format!("xn--{}", punycode(&label.to_lowercase())),
    };
    Some(name.split(['.', '。']).map(label).collect::<Vec<_>>().join("."))
}

/// Encodes by RFC 3492 section 6.3: the ASCII letters, then the positions and numbers of the
/// others.
fn punycode(label: &str) -> String {
    let mut written: String = label.chars().filter(char::is_ascii).collect();
    let basic = u32::try_from(written.len()).unwrap_or(u32::MAX);
    if basic > 0 {
        written.push('-');
    }
    let (mut number, mut delta, mut bias, mut done) = (128_u32, 0_u32, 72, basic);
    let others = || label.chars().map(u32::from);
    while let Some(next) = others().filter(|char| *char >= number).min() {
        delta = delta.saturating_add((next - number).saturating_mul(done + 1));
        number = next;
        for char in others() {
            if char < number {
                delta = delta.saturating_add(1);
            } else if char == number {
                written.push_str(&digits(delta, bias));
                bias = adapted(delta, done + 1, done == basic);
                (delta, done) = (0, done + 1);
            }
        }
        (delta, number) = (delta.saturating_add(1), number + 1);
    }
    written
}

/// Encodes a number in digits of varying base, `a` to `z` and `0` to `9`.
fn digits(mut number: u32, bias: u32) -> String {
    const DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let digit = |value: u32| {
        let place = usize::try_from(value).unwrap_or(usize::MAX);
        DIGITS.get(place).map_or('?', |digit| char::from(*digit))
    };
    let mut written = String::new();
    for place in 1_u32.. {
        let threshold = (place * 36).saturating_sub(bias).clamp(1, 26);
        if number < threshold {
            break;
        }
        written.push(digit(threshold + (number - threshold) % (36 - threshold)));
        number = (number - threshold) / (36 - threshold);
    }
    written.push(digit(number));
    written
}

fn adapted(delta: u32, count: u32, first: bool) -> u32 {
    let mut delta = if first { delta / 700 } else { delta / 2 };
    delta += delta / count;
    let mut steps = 0;
    while delta > 455 {
        delta /= 35;
        steps += 36;
    }
    steps + 36 * delta / (delta + 38)
}

fn check_label(label: &str) -> Result<(), InvalidHost> {
    let wrong = |why| Err(InvalidHost::Label { label: label.into(), why });
    if let Some(ascii) = in_ascii(label) {
        return Err(InvalidHost::NotAscii { label: label.into(), ascii });
    }
    if label.is_empty() {
        return wrong("it is empty");
    }
    if label.len() > 63 {
        return wrong("it is longer than 63 characters");
    }
    if label.starts_with('-') || label.ends_with('-') {
        return wrong("it begins or ends with `-`");
    }
    if label.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return wrong("use lower case");
    }
    if label == "*" {
        return wrong("`*` may only be the whole first label");
    }
    if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return wrong("use letters, digits and `-`");
    }
    Ok(())
}

/// The reason why a text is not a hostname.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidHost {
    #[error("an IP address is not a hostname; leave `hostname` out to accept any host")]
    IpAddress,
    #[error("label `{label}`: {why}")]
    Label { label: String, why: &'static str },
    #[error("label `{label}`: use letters, digits and `-`; in DNS it is `{ascii}`")]
    NotAscii { label: String, ascii: String },
    #[error("longer than 253 characters")]
    TooLong,
}

/// An address range in CIDR form: `10.0.0.0/8`, `fd00::/8`, or one address.
///
/// The host bits stay as they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cidr(IpNet);

impl Cidr {
    /// True if `address` is in the range. An IPv4 address mapped into IPv6 counts as IPv4.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let invalid = || InvalidCidr(text.into());
        let range = match text.contains('/') {
            true => text.parse().map_err(|_| invalid())?,
            false => text.parse::<IpAddr>().map_err(|_| invalid())?.into(),
        };
        Ok(Self(range))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A pool of addresses to assign, at least one and at most [`AddressPool::MOST`].
///
/// All addresses of a range except those that mean the range itself: the first, and of IPv4 the
/// last too (RFC 4291 section 2.6.1, RFC 919), unless the range has no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressPool {
    range: Cidr,
    /// The first address, as a number.
    first: u128,
    len: u32,
}

impl AddressPool {
    /// Limit on the addresses of a pool. The search for one that can be bound may have to try them
    /// all.
    pub(crate) const MOST: u32 = 1 << 16;

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Returns the address at `place`, counted from 0; places beyond the end start again at the
    /// first.
    pub(crate) fn nth(&self, place: u32) -> IpAddr {
        let number = self.first + u128::from(place % self.len);
        match self.range.0.addr() {
            // Parsing has checked that all of them fit.
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(number).unwrap_or(u32::MAX).into()),
            IpAddr::V6(_) => IpAddr::V6(number.into()),
        }
    }

    /// True for an address of the pool.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let number = match (self.range.0.addr(), address) {
            (IpAddr::V4(_), IpAddr::V4(address)) => u128::from(u32::from(address)),
            (IpAddr::V6(_), IpAddr::V6(address)) => u128::from(address),
            _ => return false,
        };
        number.checked_sub(self.first).is_some_and(|place| place < u128::from(self.len))
    }
}

impl FromStr for AddressPool {
    type Err = InvalidPool;

    fn from_str(text: &str) -> Result<Self, InvalidPool> {
        let range: Cidr = text.parse()?;
        let (most, network) = match range.0.addr() {
            IpAddr::V4(network) => (32, u128::from(u32::from(network))),
            IpAddr::V6(network) => (128, u128::from(network)),
        };
        let free = u32::from(most - range.0.prefix_len());
        let size = 1_u32.checked_shl(free).filter(|size| *size <= Self::MOST);
        let size = size.ok_or_else(|| InvalidPool::TooLarge { range, least: most - 16 })?;
        let base = network >> free << free;
        let (first, len) = match (size, range.0.addr()) {
            (1 | 2, _) => (base, size),
            (_, IpAddr::V4(_)) => (base + 1, size - 2),
            (_, IpAddr::V6(_)) => (base + 1, size - 1),
        };
        Ok(Self { range, first, len })
    }
}

impl fmt::Display for AddressPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.range.fmt(f)
    }
}

/// The reason why a text is not an address pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidPool {
    #[error(transparent)]
    Range(#[from] InvalidCidr),
    #[error("`{range}` has more than 65536 addresses; use a prefix of /{least} or longer")]
    TooLarge { range: Cidr, least: u8 },
}

/// The error for a text that is not an address range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address range; write it like `10.0.0.0/8`, `fd00::/8` or `127.0.0.1`")]
pub(crate) struct InvalidCidr(String);

/// Returns the peer of a connection in the form for display: IPv4 mapped into IPv6 becomes plain
/// IPv4.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// A socket that clients send to: a TCP listener or a UDP socket.
#[derive(Debug)]
pub(crate) enum ServerSocket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl ServerSocket {
    pub(crate) fn is_udp(&self) -> bool {
        matches!(self, Self::Udp(_))
    }

    /// # Errors
    ///
    /// Errors of getsockname(2).
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            Self::Udp(socket) => socket.local_addr(),
        }
    }

    /// # Errors
    ///
    /// Errors of fcntl(2).
    pub(crate) fn set_nonblocking(&self, is_so: bool) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(is_so),
            Self::Udp(socket) => socket.set_nonblocking(is_so),
        }
    }

    /// Returns another descriptor of the same socket.
    ///
    /// # Errors
    ///
    /// No descriptor is free.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Udp(socket) => socket.try_clone().map(Self::Udp),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> HostPattern {
        HostPattern::parse(text).unwrap()
    }

    #[test]
    fn a_name_beyond_ascii_is_told_as_dns_has_it() {
        // (name, in DNS); the last two names are from RFC 3492 section 7.1
        let table = [
            ("bücher.example", Some("xn--bcher-kva.example")),
            ("Bücher.Example", Some("xn--bcher-kva.example")),
            ("straße.example", Some("xn--strae-oqa.example")),
            ("日本語.example", Some("xn--wgv71a119e.example")),
            ("*.münchen.example", Some("*.xn--mnchen-3ya.example")),
            ("他们为什么不说中文", Some("xn--ihqwcrb4cv8a8dqg056pqjye")),
            ("pročprostěnemluvíčesky", Some("xn--proprostnemluvesky-uyb24dma41a")),
            ("example.org", None),
        ];
        for (name, want) in table {
            assert_eq!(in_ascii(name).as_deref(), want, "{name}");
        }
        let message = HostPattern::parse("bücher.example").unwrap_err().to_string();
        assert!(message.contains("`xn--bcher-kva`"), "{message}");
    }

    #[test]
    fn a_private_address_is_not_public() {
        let table = [
            ("203.0.113.7", true),
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("127.0.0.1", false),
            ("169.254.1.1", false),
            ("2001:db8::1", true),
            ("fd00::1", false),
            ("::1", false),
        ];
        for (address, want) in table {
            assert_eq!(is_public(address.parse().unwrap()), want, "{address}");
        }
    }

    #[test]
    fn a_wildcard_takes_any_number_of_labels_but_not_the_apex() {
        // (pattern, host, accepted)
        let table = [
            ("example.com", "example.com", true),
            ("example.com", "a.example.com", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "badexample.com", false),
        ];
        for (pattern, name, want) in table {
            assert_eq!(host(pattern).accepts(name), want, "{pattern} and {name}");
        }
    }

    #[test]
    fn the_intersection_is_the_more_specific() {
        // (a, b, intersection)
        let table = [
            ("a.example.com", "*.example.com", Some("a.example.com")),
            ("*.example.com", "*.a.example.com", Some("*.a.example.com")),
            ("*.example.com", "*.example.com", Some("*.example.com")),
            ("*.example.com", "example.com", None),
            ("*.example.com", "*.example.org", None),
            ("*.oo.com", "*.foo.com", None),
            ("a.example.com", "b.example.com", None),
        ];
        for (a, b, want) in table {
            let want = want.map(host);
            assert_eq!(host(a).intersect(&host(b)), want, "{a} and {b}");
            assert_eq!(host(b).intersect(&host(a)), want, "{b} and {a}");
        }
    }

    #[test]
    fn what_is_no_hostname_says_why() {
        // (text, part of the message)
        let table = [
            ("10.0.0.1", "IP address"),
            ("Example.com", "lower case"),
            ("a..com", "empty"),
            ("a.*.com", "first label"),
            ("*", "first label"),
            ("-a.com", "begins"),
            ("a_b.com", "letters"),
        ];
        for (text, want) in table {
            let message = HostPattern::parse(text).unwrap_err().to_string();
            assert!(message.contains(want), "{text}: {message}");
        }
    }

    #[test]
    fn a_range_contains_what_its_prefix_says() {
        // (range, address, inside)
        let table = [
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "::ffff:127.0.0.1", true),
            ("fd00::/8", "fdff::1", true),
            ("::/0", "fe80::1", true),
            ("::/0", "1.2.3.4", false),
        ];
        for (range, address, want) in table {
            let cidr: Cidr = range.parse().unwrap();
            assert_eq!(cidr.contains(address.parse().unwrap()), want, "{address} in {range}");
        }
        for wrong in ["10.0.0.0/33", "x", "::/129", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pool_gives_away_what_means_one_host() {
        // (range, number of addresses, first, last)
        let table = [
            ("127.1.0.0/16", 65534, "127.1.0.1", "127.1.255.254"),
            ("127.1.0.0/29", 6, "127.1.0.1", "127.1.0.6"),
            ("127.1.0.5/30", 2, "127.1.0.5", "127.1.0.6"),
            ("127.1.0.4/31", 2, "127.1.0.4", "127.1.0.5"),
            ("127.1.0.4", 1, "127.1.0.4", "127.1.0.4"),
            ("255.255.255.254/31", 2, "255.255.255.254", "255.255.255.255"),
            ("fd00::/112", 65535, "fd00::1", "fd00::ffff"),
            ("fd00::8/126", 3, "fd00::9", "fd00::b"),
        ];
        for (range, len, first, last) in table {
            let pool: AddressPool = range.parse().unwrap();
            let ends = [pool.nth(0), pool.nth(len - 1), pool.nth(len)].map(|ip| ip.to_string());
            assert_eq!(
                (pool.len(), ends),
                (len, [first, last, first].map(String::from)),
                "{range}"
            );
            assert!([first, last].iter().all(|ip| pool.contains(ip.parse().unwrap())), "{range}");
        }
        let pool: AddressPool = "127.1.0.0/29".parse().unwrap();
        for outside in ["127.1.0.0", "127.1.0.7", "127.1.0.8", "::1", "::ffff:127.1.0.1"] {
            assert!(!pool.contains(outside.parse().unwrap()), "{outside}");
        }
        for wrong in ["0.0.0.0/0", "127.0.0.0/15", "fd00::/64", "::/0", "x", ""] {
            assert!(wrong.parse::<AddressPool>().is_err(), "{wrong}");
        }
    }
}
