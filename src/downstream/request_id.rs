//! New IDs for requests and byte streams, for the log and for backends.

use std::cell::RefCell;

use bytes::Bytes;
use http::HeaderValue;

/// Size of an ID, in bytes.
const ID_BYTES: usize = "0f8fad5b-d9cb-469f-a165-70867728950e".len();
/// Number of IDs that share one allocation. It is freed when the last of them is dropped, so an ID
/// that lives long, such as that of a tunnel, keeps the memory of so many.
const IDS_AT_ONCE: usize = 16;

/// The two hexadecimal digits of each byte.
const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut hex = [[0; 2]; 256];
    let mut byte = 0;
    while byte < hex.len() {
        hex[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    hex
};

thread_local! {
    /// IDs that this thread has not used yet, one after the other.
    static IDS: RefCell<Bytes> = const { RefCell::new(Bytes::new()) };
}

/// Returns a random UUID, version 4. It is an identifier, not a secret: nothing may rely on it
/// being unpredictable.
pub(crate) fn new_request_id() -> HeaderValue {
    let next = IDS.try_with(|ids| {
        let mut ids = ids.try_borrow_mut().ok()?;
        if ids.is_empty() {
            *ids = new_ids(IDS_AT_ONCE);
        }
        Some(ids.split_to(ID_BYTES))
    });
    // A thread that is ending has no more IDs in stock.
    let id = next.ok().flatten().unwrap_or_else(|| new_ids(1));
    HeaderValue::from_maybe_shared(id).unwrap_or(HeaderValue::from_static("-"))
}

fn new_ids(count: usize) -> Bytes {
    let mut ids = Vec::with_capacity(count * ID_BYTES);
    for _ in 0..count {
        ids.extend_from_slice(&text(fastrand::u128(..).to_be_bytes()));
    }
    ids.into()
}

/// Returns the text of a version 4 UUID that is otherwise made of `random` (RFC 9562 section 5.4).
fn text(mut random: [u8; 16]) -> [u8; ID_BYTES] {
    random[6] = random[6] & 0x0f | 0x40;
    random[8] = random[8] & 0x3f | 0x80;
    let mut text = [b'-'; ID_BYTES];
    let mut at = 0;
    for (place, byte) in random.into_iter().enumerate() {
        text[at..at + 2].copy_from_slice(&HEX[usize::from(byte)]);
        // A dash follows the 4th, 6th, 8th and 10th byte.
        at += if matches!(place, 3 | 5 | 7 | 9) { 3 } else { 2 };
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_request_id_is_a_version_4_uuid() {
        let id = new_request_id();
        let text = id.to_str().unwrap();
        let parts: Vec<_> = text.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{text}");
        assert_eq!(&text[14..15], "4", "{text}");
        assert!("89ab".contains(&text[19..20]), "{text}");
        assert_ne!(id, new_request_id());
    }

    #[test]
    fn the_bytes_are_written_in_order_between_version_and_variant() {
        // (random bytes, text)
        let table = [
            ([0; 16], "00000000-0000-4000-8000-000000000000"),
            ([0xff; 16], "ffffffff-ffff-4fff-bfff-ffffffffffff"),
            (
                0x0123_4567_89ab_cdef_0123_4567_89ab_cdef_u128.to_be_bytes(),
                "01234567-89ab-4def-8123-456789abcdef",
            ),
        ];
        for (random, want) in table {
            assert_eq!(std::str::from_utf8(&text(random)), Ok(want));
            let by_the_crate = uuid::Builder::from_random_bytes(random).into_uuid();
            assert_eq!(by_the_crate.to_string(), want);
        }
    }

    #[test]
    fn no_id_is_given_twice() {
        let count = 5 * IDS_AT_ONCE;
        let here = (0..count).map(|_| new_request_id());
        let there =
            std::thread::spawn(move || (0..count).map(|_| new_request_id()).collect::<Vec<_>>());
        let ids: HashSet<_> = here.chain(there.join().unwrap()).collect();
        assert_eq!(ids.len(), 2 * count);
    }
}
