//! Text from peers, cut to a length for attributes of spans.

/// The limit in bytes on a text that has no limit of its own.
pub(super) const WORD_BYTES: usize = 256;

/// At most `most` bytes of a peer's text; bytes that are not UTF-8 are replaced.
pub(super) fn text(bytes: &[u8], most: usize) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned()
}
