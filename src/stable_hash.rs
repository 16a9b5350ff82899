//! FNV-1a hashes, which are the same in every process and in every build.
//!
//! Use them for values that leave the process (names of cookies, UIDs, addresses of a pool) and for choices
//! that a restart must not change. The hashes of the standard library may change with each build. FNV-1a
//! does not hide the text.

/// Returns the 32-bit hash.
pub(crate) fn hash_32(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Returns the 64-bit hash, with its bits mixed: values that differ little have hashes that differ in
/// half of their bits.
pub(crate) fn hash_64(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    mixed(bytes.iter().fold(0xcbf2_9ce4_8422_2325, step))
}

/// Mixes the bits of a number, so that each depends on all others (the finalizer of SplitMix64).
pub(crate) fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// Returns 128 bits: two 64-bit hashes that begin with different values.
pub(crate) fn hash_128(text: &str) -> u128 {
    let hash = |start: u64| {
        text.bytes()
            .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    };
    let (high, low) = (hash(0xcbf2_9ce4_8422_2325), hash(0x8422_2325_cbf2_9ce4));
    u128::from(high) << 64 | u128::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The 32-bit values are those of the authors of FNV.
    #[test]
    fn hashes_are_those_of_the_specification() {
        let table = [("", 0x811c_9dc5), ("a", 0xe40c_292c), ("foobar", 0xbf9c_f968)];
        for (text, want) in table {
            assert_eq!(hash_32(text), want, "{text}");
        }
        assert_eq!(hash_64(b"foobar"), mixed(0x8594_4171_f739_67e8));
        // The first value of SplitMix64 with the seed 0.
        assert_eq!(mixed(0x9e37_79b9_7f4a_7c15), 0xe220_a839_7b1d_cdaf);
        assert_eq!(hash_128("foobar") >> 64, 0x8594_4171_f739_67e8);
    }
}
