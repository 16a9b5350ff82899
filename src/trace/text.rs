//! Text from peers, limited in length for attributes of spans.

/// Default limit on the length of a text in bytes.
pub(super) const WORD_BYTES: usize = 256;

/// Returns at most `most` bytes of a peer's text; bytes that are not UTF-8 are replaced.
pub(super) fn text(bytes: &[u8], most: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned()
}
