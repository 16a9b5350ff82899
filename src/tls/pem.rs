//! PEM to DER, with error messages that say what the file contains instead.
//!
//! Reads files as editors and `cat` leave them: a byte order mark, CRLF, indented lines, several
//! sections on a line, text around them, lines that begin with `#`. Text that looks like a section
//! and cannot be read is an error: if a certificate were skipped silently, clients would miss it.

use rustls_pemfile::pem::PemObject;
use rustls_pemfile::{CertificateDer, PrivateKeyDer};

use super::fault::Cause;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const HYPHENS: &[u8] = b"-----";
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

const KEYS: [&[u8]; 3] = [b"PRIVATE KEY", b"RSA PRIVATE KEY", b"EC PRIVATE KEY"];
/// The sections allowed beside a chain or a key, by the end of their label.
const BESIDE: [&[u8]; 5] =
    [b"PRIVATE KEY", b"PUBLIC KEY", b"PARAMETERS", b"CERTIFICATE REQUEST", b"X509 CRL"];

/// Returns every certificate of `text`, in order. Keys, parameters and the like are skipped.
///
/// # Errors
///
/// Text that looks like a section and cannot be read, or no certificate at all: a chain is complete
/// or refused.
pub(super) fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Cause> {
    let mut chain = Vec::new();
    for section in sections(text)? {
        match section.label {
            b"CERTIFICATE" | b"X509 CERTIFICATE" => {
                chain.push(section.decode(b"CERTIFICATE")?);
            }
            b"TRUSTED CERTIFICATE" => return Err(Cause::OtherForm(TRUSTED)),
            b"PKCS7" | b"CMS" => return Err(Cause::OtherForm(PKCS7)),
            label if BESIDE.iter().any(|known| label.ends_with(known)) => {}
            _ => return Err(section.unknown()),
        }
    }
    if chain.is_empty() { Err(Cause::NoCertificate) } else { Ok(chain) }
}

/// Returns the first private key of `text`: PKCS#8, PKCS#1 (`RSA PRIVATE KEY`) or SEC1 (`EC PRIVATE
/// KEY`).
///
/// # Errors
///
/// The errors of [`chain`], and an encrypted key.
pub(super) fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Cause> {
    let sections = sections(text)?;
    if let Some(key) = sections.iter().find(|section| KEYS.contains(&section.label)) {
        // The old form of encryption is a header in an ordinary section.
        if contains(key.body, b"Proc-Type: 4,ENCRYPTED") {
            return Err(Cause::EncryptedKey);
        }
        return key.decode(key.label);
    }
    let has = |label: &[u8]| sections.iter().any(|section| section.label == label);
    if has(b"ENCRYPTED PRIVATE KEY") {
        return Err(Cause::EncryptedKey);
    }
    if has(b"OPENSSH PRIVATE KEY") {
        return Err(Cause::OtherForm(OPENSSH));
    }
    let known = |section: &&Section<'_>| {
        section.label.ends_with(b"CERTIFICATE")
            || BESIDE.iter().any(|known| section.label.ends_with(known))
    };
    match sections.iter().find(|section| !known(section)) {
        Some(section) => Err(section.unknown()),
        None => Err(Cause::NoKey { certificate: has(b"CERTIFICATE") }),
    }
}

const UTF16: &str = "is UTF-16 text, as `>` of Windows PowerShell writes it; save it as ASCII or UTF-8 \
                     (`iconv -f UTF-16 -t UTF-8`)";
const BINARY: &str = "is binary, not PEM; convert DER with `openssl x509 -inform der` or `openssl pkey \
                      -inform der`, and PKCS#12 (.p12, .pfx) with `openssl pkcs12 -nodes`";
const TRUSTED: &str = "holds a `TRUSTED CERTIFICATE`, a form that only OpenSSL reads; convert it with \
                       `openssl x509`, which writes `-----BEGIN CERTIFICATE-----`";
const PKCS7: &str =
    "holds its certificates in PKCS#7; convert it with `openssl pkcs7 -print_certs`";
const OPENSSH: &str = "holds a key of OpenSSH, `OPENSSH PRIVATE KEY`; use the key that the certificate \
                       was issued for, as `openssl pkey` writes it";

/// A section of the file.
struct Section<'a> {
    /// Counted from 1, for messages.
    number: usize,
    label: &'a [u8],
    /// The text between the lines that begin and end it.
    body: &'a [u8],
}

impl Section<'_> {
    /// Decodes the section under this label. The base64 is passed on without whitespace and
    /// headers.
    fn decode<T: PemObject>(&self, label: &[u8]) -> Result<T, Cause> {
        let base64 = self.base64();
        let text = [BEGIN, label, b"-----\n", &base64, b"\n", END, label, b"-----\n"].concat();
        // The decoder ignores characters that do not fill a group of four.
        match base64.len() % 4 {
            0 if !base64.is_empty() => T::from_pem_slice(&text).map_err(|_| self.fault(&base64)),
            _ => Err(self.fault(&base64)),
        }
    }

    /// Returns the body without whitespace, and without the headers that old tools put before it
    /// (RFC 1421).
    fn base64(&self) -> Vec<u8> {
        let is_header = |line: &[u8]| line.contains(&b':');
        let lines = self.body.split(|byte| matches!(byte, b'\n' | b'\r'));
        let mut lines = lines.map(<[u8]>::trim_ascii).skip_while(|line| line.is_empty()).peekable();
        if lines.peek().is_some_and(|line| is_header(line)) {
            // With CRLF every second line is empty; a header is never base64.
            while lines.next_if(|line| line.is_empty() || is_header(line)).is_some() {}
        }
        lines.flatten().copied().filter(|byte| !byte.is_ascii_whitespace()).collect()
    }

    /// Returns the reason why it cannot be decoded. Never quotes the file, and so never a part of a
    /// key.
    fn fault(&self, base64: &[u8]) -> Cause {
        let number = self.number;
        Cause::BrokenPem(if base64.is_empty() {
            format!("section {number} is empty")
        } else if contains(base64, br"\n") {
            format!("section {number} has the two characters `\\n` where its lines should end")
        } else if is_base64(base64) {
            format!("the base64 of section {number} is cut short")
        } else {
            format!("section {number} is not base64")
        })
    }

    fn unknown(&self) -> Cause {
        Cause::BrokenPem(format!(
            "section {} is of an unknown kind; expected `CERTIFICATE`, `PRIVATE KEY`, `RSA PRIVATE \
             KEY` or `EC PRIVATE KEY` after `-----BEGIN `",
            self.number
        ))
    }
}

/// Returns every section of `text`, known or not.
fn sections(text: &[u8]) -> Result<Vec<Section<'_>>, Cause> {
    if is_utf16(text) {
        return Err(Cause::OtherForm(UTF16));
    }
    // A DER SEQUENCE, or not text.
    let is_der = matches!(text, [0x30, length, ..] if *length >= 0x80);
    if is_der || text.contains(&0) {
        return Err(Cause::OtherForm(BINARY));
    }
    let mut sections = Vec::new();
    let mut rest = without_space(text);
    while !rest.is_empty() {
        let number = sections.len() + 1;
        if rest.starts_with(BEGIN) {
            let (section, after) = section(rest, number)?;
            sections.push(section);
            rest = without_space(after);
            continue;
        }
        let end = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len());
        let (line, after) = rest.split_at(end);
        if !line.starts_with(b"#") && is_like_a_marker(line) {
            return Err(Cause::BrokenPem(format!(
                "section {number} has no line `-----BEGIN ...-----` and `-----END ...-----`, with \
                 five hyphens on either side and nothing before it"
            )));
        }
        rest = without_space(after);
    }
    Ok(sections)
}

/// Parses the section at the beginning of `text`. Returns it and the text after it.
fn section(text: &[u8], number: usize) -> Result<(Section<'_>, &[u8]), Cause> {
    let broken = |problem: String| Err(Cause::BrokenPem(problem));
    let after = &text[BEGIN.len()..];
    let end = after.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(after.len());
    let Some(label) = find(&after[..end], HYPHENS) else {
        return broken(format!(
            "section {number} does not begin with a line like `-----BEGIN CERTIFICATE-----`"
        ));
    };
    let (label, after) = (&after[..label], &after[label + HYPHENS.len()..]);
    let end = find(after, END);
    if find(&after[..end.unwrap_or(after.len())], BEGIN).is_some() {
        return broken(format!("section {number} has no `-----END` line before the next begins"));
    }
    let Some(end) = end else {
        return broken(
            match KEYS.iter().chain([&&b"CERTIFICATE"[..]]).find(|one| **one == label) {
                Some(label) => format!(
                    "the last section has no `-----END {}-----` line, so the file is cut short",
                    String::from_utf8_lossy(label)
                ),
                None => "the last section has no `-----END` line, so the file is cut short".into(),
            },
        );
    };
    let (body, after) = (&after[..end], &after[end + END.len()..]);
    let Some(after) = after.strip_prefix(label).and_then(|after| after.strip_prefix(HYPHENS))
    else {
        return broken(format!("the `-----END` line of section {number} does not fit its first"));
    };
    Ok((Section { number, label, body }, after))
}

/// Removes whitespace and byte order marks from the beginning.
fn without_space(text: &[u8]) -> &[u8] {
    let mut text = text.trim_ascii_start();
    while let Some(rest) = text.strip_prefix(BYTE_ORDER_MARK) {
        text = rest.trim_ascii_start();
    }
    text
}

/// True for a line that was meant to begin or end a section: with another number of hyphens, with
/// dashes of a word processor, in lower case, after other text.
fn is_like_a_marker(line: &[u8]) -> bool {
    let line = line.to_ascii_uppercase();
    let is_dash = |byte: Option<&u8>| byte.is_some_and(|byte| *byte == b'-' || !byte.is_ascii());
    [&b"BEGIN "[..], b"END "].into_iter().any(|word| {
        let mut from = 0;
        while let Some(found) = find(&line[from..], word) {
            let (before, after) = (&line[..from + found], &line[from + found + word.len()..]);
            let label =
                after.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b' ');
            let label = &after[..label.count()];
            let is_kind = [&b"CERTIFICATE"[..], b"KEY", b"PKCS7", b"CMS"]
                .iter()
                .any(|kind| label.trim_ascii_end().ends_with(kind));
            if is_kind
                && (is_dash(before.trim_ascii_end().last()) || is_dash(after.get(label.len())))
            {
                return true;
            }
            from += found + word.len();
        }
        false
    })
}

fn is_utf16(text: &[u8]) -> bool {
    match text {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => true,
        [first, 0, second, 0, ..] | [0, first, 0, second, ..] => *first != 0 && *second != 0,
        _ => false,
    }
}

fn is_base64(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    find(text, part).is_some()
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const TWO: &str = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n";

    fn section(kind: &str, text: &str) -> String {
        format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
    }

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    #[test]
    fn what_is_no_key_says_what_it_is() {
        let old_encryption = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA";
        // (text, part of the message)
        let table = [
            (String::new(), "no private key"),
            (section("ENCRYPTED PRIVATE KEY", "AAAA"), "no passphrase"),
            (section("RSA PRIVATE KEY", old_encryption), "no passphrase"),
            (section("CERTIFICATE", "AAAA"), "swapped"),
            (section("OPENSSH PRIVATE KEY", "AAAA"), "OpenSSH"),
            (section("PRVATE KEY", "AAAA"), "section 1 is of an unknown kind"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n".into(), "cut short"),
            (section("PRIVATE KEY", "!!!!"), "base64"),
            (section("PRIVATE KEY", "AAAAA"), "base64 of section 1 is cut short"),
            (section("PRIVATE KEY", ""), "section 1 is empty"),
            (section("PRIVATE KEY", r"AAAA\nAAAA"), r"two characters `\n`"),
            (section("PRIVATE KEY", "AAAA").replace("-----B", "----B"), "five hyphens"),
        ];
        for (text, want) in table {
            let message = private_key(text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(want), "{text}: {message}");
        }
        let message = private_key(&utf16(&section("PRIVATE KEY", "AAAA"))).unwrap_err().to_string();
        assert!(message.contains("UTF-16"), "{message}");
    }

    #[test]
    fn a_key_is_read_however_an_editor_saved_it() {
        let key = section("PRIVATE KEY", "AAAA");
        let headers = section("RSA PRIVATE KEY", "X-Note: kept\r\n\r\nAA\r\nAA");
        let table = [
            key.clone(),
            format!("\u{feff}{key}"),
            key.replace('\n', "\r\n"),
            key.replace("AAAA", "  AA\n\n\tAA "),
            format!("{}{key}", ONE.trim_end()),
            format!("Bag Attributes\n    friendlyName: x\n{key}"),
            headers,
        ];
        for text in table {
            let key =
                private_key(text.as_bytes()).unwrap_or_else(|cause| panic!("{text}: {cause}"));
            assert_eq!(key.secret_der(), [0, 0, 0], "{text}");
        }
    }

    #[test]
    fn a_chain_is_whole_or_refused() {
        let one = ONE.trim_end();
        // Two certificates each.
        let table = [
            format!("{ONE}{TWO}"),
            format!("{one}{TWO}"),
            format!("{one} {}", TWO.trim_end()),
            format!("{ONE}{TWO}").replace('\n', "\r\n"),
            format!("{ONE}{TWO}").replace('\n', "\r"),
            format!("{ONE}{TWO}").replace('\n', "\n    "),
            format!("\u{feff}{ONE}\u{feff}{TWO}"),
            format!("{one}\u{feff}{TWO}"),
            format!(
                "subject=CN = a\n{ONE} 1 s:CN = b\n   i:CN = c\n{TWO}---\nServer certificate\n"
            ),
            format!("{ONE}# {}\n{TWO}", ONE.replace('\n', "\n# ")),
            format!("{ONE}{}{TWO}", section("EC PARAMETERS", "AAAA")),
            format!("{ONE}{}{TWO}", section("PRIVATE KEY", "not looked at")),
            format!("{}{TWO}", ONE.replace("CERTIFICATE", "X509 CERTIFICATE")),
        ];
        for text in table {
            let found = chain(text.as_bytes()).unwrap_or_else(|cause| panic!("{text}: {cause}"));
            let found: Vec<_> = found.iter().map(|one| one[0]).collect();
            assert_eq!(found, [0, 4], "{text}");
        }
        // (text, part of the message)
        let table = [
            (String::new(), "no certificate"),
            (section("PRIVATE KEY", "AAAA"), "no certificate"),
            (format!("{ONE}-----BEGIN CERTIFICATE-----\nAAAA\n"), "cut short"),
            (format!("{ONE}{}", ONE.replace("AAAA", "A*AA")), "section 2 is not base64"),
            (format!("{ONE}-----BEGIN CERTIFICATE\n"), "section 2 does not begin"),
            (format!("-----BEGIN CERTIFICATE-----\nAAAA\n{TWO}"), "section 1 has no `-----END`"),
            (format!("{}{TWO}", ONE.replace("END C", "END X")), "does not fit"),
            (format!("{ONE}{}", TWO.replace("-----", "----")), "section 2 has no line"),
            (format!("{ONE}{}", TWO.replace("-----BEGIN", "\u{2014}BEGIN")), "section 2 has no"),
            (format!("{ONE}{}", TWO.to_lowercase()), "five hyphens"),
            (format!("{ONE}BBBB\n-----END CERTIFICATE-----\n"), "section 2 has no line"),
            (format!("{ONE}tls.crt: {TWO}"), "nothing before it"),
            (format!("{ONE}{}", section("CERTFICATE", "BBBB")), "section 2 is of an unknown kind"),
            (format!("{ONE}{}", section("TRUSTED CERTIFICATE", "BBBB")), "`openssl x509`"),
            (section("PKCS7", "BBBB"), "PKCS#7"),
            (ONE.replace("\nAAAA\n", r"\nAAAA\n"), r"two characters `\n`"),
        ];
        for (text, want) in table {
            let message = chain(text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(want), "{text}: {message}");
        }
        let der = [0x30, 0x82, 0x01, 0x0a, 0x02];
        // (file, part of the message)
        let table = [
            (utf16(ONE), "UTF-16"),
            (utf16(&format!("\u{feff}{ONE}")), "UTF-16"),
            (ONE.encode_utf16().flat_map(u16::to_be_bytes).collect(), "UTF-16"),
            (der.into(), "binary"),
            (vec![0x1f, 0x8b, 0, 0, 0], "binary"),
        ];
        for (file, want) in table {
            let message = chain(&file).unwrap_err().to_string();
            assert!(message.contains(want), "{file:?}: {message}");
        }
    }

    #[test]
    fn a_message_never_quotes_the_file() {
        let table =
            ["-----BEGIN hunter2\n", &section("hunter2", "AAAA"), "-----BEGIN hunter2-----\n"];
        for text in table {
            for message in [private_key(text.as_bytes()).err(), chain(text.as_bytes()).err()] {
                let message = message.unwrap().to_string();
                assert!(!message.contains("hunter2"), "{message}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_file_is_read_or_refused(
            parts in prop::collection::vec(
                prop_oneof![
                    Just("-----BEGIN CERTIFICATE-----".to_owned()),
                    Just("-----END CERTIFICATE-----".to_owned()),
                    Just("-----BEGIN ".to_owned()),
                    Just("-----END ".to_owned()),
                    Just("\u{feff}".to_owned()),
                    "[-\n\rA-Za-z #]{0,12}",
                ],
                0..12,
            )
        ) {
            let text = parts.concat();
            let begun = text.matches("-----BEGIN CERTIFICATE-----").count();
            if let Ok(chain) = chain(text.as_bytes()) {
                prop_assert!(chain.len() <= begun);
            }
            let _ = private_key(text.as_bytes());
        }
    }
}
