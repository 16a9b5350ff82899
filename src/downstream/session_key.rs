//! The key that encrypts session tokens.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};

/// Length of a key in bytes.
pub(crate) const KEY_LENGTH: usize = 32;

/// The key that encrypts session tokens. Its possession allows a choice among the endpoints of a
/// rule, and nothing else.
pub(crate) struct SessionKey(RandomizedNonceKey);

impl SessionKey {
    /// # Errors
    ///
    /// Fails if `bytes` are not [`KEY_LENGTH`] long.
    pub(crate) fn new(bytes: &[u8]) -> Result<Self, InvalidKey> {
        RandomizedNonceKey::new(&AES_256_GCM, bytes).map(Self).map_err(|_| InvalidKey)
    }

    /// Encrypts `text` for `scope`. Returns the nonce and the ciphertext, or `None` on failure.
    pub(crate) fn seal(&self, scope: &str, mut text: Vec<u8>) -> Option<Vec<u8>> {
        let scope = Aad::from(scope.as_bytes());
        let nonce = self.0.seal_in_place_append_tag(scope, &mut text).ok()?;
        let mut sealed = nonce.as_ref().to_vec();
        sealed.append(&mut text);
        Some(sealed)
    }

    /// Decrypts a text that was encrypted with this key for this `scope`; `None` if it was not.
    pub(crate) fn open(&self, scope: &str, mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        if sealed.len() < NONCE_LEN {
            return None;
        }
        let mut rest = sealed.split_off(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(&sealed).ok()?;
        let length =
            self.0.open_in_place(nonce, Aad::from(scope.as_bytes()), &mut rest).ok()?.len();
        rest.truncate(length);
        Some(rest)
    }

    /// Returns random bytes for a new key.
    ///
    /// # Errors
    ///
    /// Fails if the system provides no random numbers.
    pub(crate) fn random_bytes() -> Result<[u8; KEY_LENGTH], InvalidKey> {
        let mut bytes = [0; KEY_LENGTH];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| InvalidKey)?;
        Ok(bytes)
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey")
    }
}

/// The error for bytes that are not a valid key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a session key has {KEY_LENGTH} bytes")]
pub(crate) struct InvalidKey;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_length() {
        assert!(SessionKey::new(&[0; KEY_LENGTH - 1]).is_err());
        let bytes = SessionKey::random_bytes().unwrap();
        assert_ne!(bytes, SessionKey::random_bytes().unwrap());
    }
}
