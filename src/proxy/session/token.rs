//! The sealed token of a session: its endpoint and its start time.
//!
//! The token is encrypted by AES-256-GCM with a key of this host, with the rule as associated data.
//! Thus a token reveals nothing to its bearer, cannot be forged or changed, and is valid for one
//! rule only. The endpoint that it names is looked up among the rule's own before it is used.

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::downstream::SessionKey;

/// Maximum length of a token in bytes. A longer one cannot be valid: an endpoint has at most 108
/// bytes (the path of a socket) and a cluster some 600.
const MAX_TOKEN: usize = 2 << 10;

/// The content of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionToken {
    /// The name of the cluster.
    pub cluster: String,
    /// The endpoint in its text form.
    pub endpoint: String,
    /// Time at which the session began.
    pub since: SystemTime,
}

impl SessionToken {
    /// Encrypts the token for transport: letters, digits, `-` and `_`. Returns `None` if it cannot
    /// be sealed or would be too long.
    pub(super) fn seal(&self, key: &SessionKey, scope: &str) -> Option<String> {
        let since = self.since.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        let mut text = since.to_be_bytes().to_vec();
        text.extend_from_slice(self.cluster.as_bytes());
        // No cluster name contains a newline.
        text.push(b'\n');
        text.extend_from_slice(self.endpoint.as_bytes());
        let token = URL_SAFE_NO_PAD.encode(key.seal(scope, text)?);
        (token.len() <= MAX_TOKEN).then_some(token)
    }

    /// Decrypts `text`; `None` if it was not sealed with this key for this scope.
    pub(super) fn open(text: &[u8], key: &SessionKey, scope: &str) -> Option<Self> {
        if text.len() > MAX_TOKEN {
            return None;
        }
        let opened = key.open(scope, URL_SAFE_NO_PAD.decode(text).ok()?)?;
        let (since, names) = opened.split_first_chunk::<8>()?;
        let since = Duration::from_secs(u64::from_be_bytes(*since));
        let (cluster, endpoint) = std::str::from_utf8(names).ok()?.split_once('\n')?;
        Some(Self {
            cluster: cluster.into(),
            endpoint: endpoint.into(),
            since: SystemTime::UNIX_EPOCH.checked_add(since)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downstream::KEY_LENGTH;

    fn token() -> SessionToken {
        SessionToken {
            cluster: "backend/default/shop".into(),
            endpoint: "10.0.0.7:8080".into(),
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_789_387_200),
        }
    }

    fn key(byte: u8) -> SessionKey {
        SessionKey::new(&[byte; KEY_LENGTH]).unwrap()
    }

    #[test]
    fn a_token_is_good_with_its_key_and_for_its_rule_alone() {
        let sealed = token().seal(&key(1), "one").unwrap();
        assert_eq!(SessionToken::open(sealed.as_bytes(), &key(1), "one"), Some(token()));
        assert_eq!(SessionToken::open(sealed.as_bytes(), &key(2), "one"), None);
        assert_eq!(SessionToken::open(sealed.as_bytes(), &key(1), "two"), None);
        assert_ne!(token().seal(&key(1), "one").unwrap(), sealed, "two tokens never look alike");
        assert!(!sealed.contains("10.0.0.7"));
    }

    #[test]
    fn whatever_else_is_sent_is_no_token() {
        let sealed = token().seal(&key(1), "one").unwrap().into_bytes();
        for at in 0..sealed.len() {
            let mut other = sealed.clone();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            // The last letter has unused bits; the decoder requires that they are zero.
            assert_eq!(SessionToken::open(&other, &key(1), "one"), None, "byte {at}");
            assert_eq!(SessionToken::open(&sealed[..at], &key(1), "one"), None, "first {at} bytes");
        }
        let long = vec![b'A'; 1 << 20];
        for text in [&b""[..], b"10.0.0.7:8080", b"\xff\xfe", &long] {
            assert_eq!(SessionToken::open(text, &key(1), "one"), None);
        }
    }
}
