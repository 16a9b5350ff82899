//! PEM to DER, with messages that say what is in the file instead of what was looked for.

use rustls_pemfile::pem::{self, PemObject};
use rustls_pemfile::{CertificateDer, PrivateKeyDer};

use super::fault::Cause;

/// Every certificate of `text`, in order. Other sections are passed over.
///
/// # Errors
///
/// A section without end, broken base64, or no certificate at all: a chain is whole or refused.
pub(super) fn chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Cause> {
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().map_err(broken)?;
    if chain.is_empty() { Err(Cause::NoCertificate) } else { Ok(chain) }
}

/// The first private key of `text`: PKCS#8, PKCS#1 (`RSA PRIVATE KEY`) or SEC1
/// (`EC PRIVATE KEY`).
///
/// # Errors
///
/// As [`chain`], and an encrypted key.
pub(super) fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, Cause> {
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound if contains(text, b"-----BEGIN ENCRYPTED PRIVATE KEY-----") => {
            Cause::EncryptedKey
        }
        pem::Error::NoItemsFound => {
            Cause::NoKey { certificate: contains(text, b"-----BEGIN CERTIFICATE-----") }
        }
        // The old form of encryption hides in a header of an ordinary section.
        _ if contains(text, b"Proc-Type: 4,ENCRYPTED") => Cause::EncryptedKey,
        error => broken(error),
    })
}

fn broken(error: pem::Error) -> Cause {
    Cause::BrokenPem(match error {
        pem::Error::MissingSectionEnd { end_marker } => format!(
            "the last section has no `-----END {}-----` line, so the file is cut short",
            String::from_utf8_lossy(&end_marker)
        ),
        pem::Error::Base64Decode(_) => "a section is not base64".into(),
        // The text of other errors may quote a line of the file, and so a part of a key.
        _ => "a section does not begin with a line like `-----BEGIN CERTIFICATE-----`".into(),
    })
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_says_what_it_is() {
        let section = |kind: &str, text: &str| {
            format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
        };
        let old_encryption = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA";
        // (text, part of the message)
        let table = [
            (String::new(), "no private key"),
            (section("ENCRYPTED PRIVATE KEY", "AAAA"), "no passphrase"),
            (section("RSA PRIVATE KEY", old_encryption), "no passphrase"),
            (section("CERTIFICATE", "AAAA"), "swapped"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n".into(), "cut short"),
            (section("PRIVATE KEY", "!!!!"), "base64"),
        ];
        for (text, want) in table {
            let message = private_key(text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(want), "{text}: {message}");
        }
    }

    #[test]
    fn a_chain_is_whole_or_refused() {
        let one = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(chain(format!("{one}{one}").as_bytes()).unwrap().len(), 2);
        assert_eq!(chain(one.replace('\n', "\r\n").as_bytes()).unwrap().len(), 1);
        // (text, part of the message)
        let table = [
            (String::new(), "no certificate"),
            (format!("{one}-----BEGIN CERTIFICATE-----\nAAAA\n"), "cut short"),
            (format!("{one}{}", one.replace("AAAA", "A*AA")), "base64"),
            (format!("{one}-----BEGIN CERTIFICATE\n"), "does not begin"),
        ];
        for (text, want) in table {
            let message = chain(text.as_bytes()).unwrap_err().to_string();
            assert!(message.contains(want), "{text}: {message}");
        }
    }

    #[test]
    fn a_message_never_quotes_the_file() {
        let text = "-----BEGIN hunter2\n";
        assert!(!private_key(text.as_bytes()).unwrap_err().to_string().contains("hunter2"));
    }
}
