//! WebSocket frame boundaries, and the close frame that the gateway sends.
//!
//! A tunnel carries bytes and changes none. It only parses the lengths of the frames to the client
//! (RFC 6455 section 5.2), to find a position between two frames for a frame of its own.

/// Close frame 1001, "going away" (RFC 6455 sections 5.5.1 and 7.4.1), unmasked as a server sends
/// it.
pub(super) const GOING_AWAY: [u8; 4] = [0x88, 0x02, 0x03, 0xE9];

/// The position in a stream of frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The current frame head: at most 2 bytes, 8 of a length and 4 of a mask.
    head: [u8; 14],
    /// Number of bytes in `head`.
    len: usize,
    /// Number of payload bytes that are still to come.
    payload: u64,
    /// A close frame has passed; nothing may follow it.
    closed: bool,
}

impl Frames {
    /// Advances the position past the bytes that were passed on.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload > 0 {
                let skipped = usize::try_from(self.payload).unwrap_or(usize::MAX).min(bytes.len());
                self.payload -= skipped as u64;
                bytes = &bytes[skipped..];
                continue;
            }
            self.head[self.len] = bytes[0];
            self.len += 1;
            bytes = &bytes[1..];
            if self.len == self.head_len() {
                self.closed |= self.head[0] & 0x0F == 8;
                self.payload = self.payload_len();
                self.len = 0;
            }
        }
    }

    /// Returns true if a close frame may be sent at this position.
    pub(super) fn may_close(&self) -> bool {
        self.len == 0 && self.payload == 0 && !self.closed
    }

    /// Returns the length of the current head; 2 until its first two bytes are known.
    fn head_len(&self) -> usize {
        if self.len < 2 {
            return 2;
        }
        let length = match self.head[1] & 0x7F {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mask = if self.head[1] & 0x80 == 0 { 0 } else { 4 };
        2 + length + mask
    }

    /// Returns the payload length from a complete head.
    fn payload_len(&self) -> u64 {
        match self.head[1] & 0x7F {
            126 => u64::from(u16::from_be_bytes([self.head[2], self.head[3]])),
            127 => {
                let mut length = [0; 8];
                length.copy_from_slice(&self.head[2..10]);
                u64::from_be_bytes(length)
            }
            short => u64::from(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(first: u8, payload: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match payload {
            0..126 => frame.push(u8::try_from(payload).unwrap()),
            126..0x1_0000 => {
                frame.push(126);
                frame.extend(u16::try_from(payload).unwrap().to_be_bytes());
            }
            _ => {
                frame.push(127);
                frame.extend((payload as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0x88; payload]);
        frame
    }

    #[test]
    fn a_close_stands_between_frames_and_behind_no_other() {
        for payload in [0, 1, 125, 126, 127, 65_535, 65_536] {
            for pieces in [1, 2, 3, 100_000] {
                let frame = frame(0x81, payload);
                let mut frames = Frames::default();
                let mut passed = 0;
                for _ in 0..2 {
                    for piece in frame.chunks(pieces) {
                        assert!(passed % frame.len() != 0 || frames.may_close(), "{payload}");
                        frames.pass(piece);
                        passed += piece.len();
                        assert_eq!(frames.may_close(), passed % frame.len() == 0, "{payload}");
                    }
                }
            }
        }
        // A masked head, which only clients send, is not counted as payload.
        let mut frames = Frames::default();
        frames.pass(&[0x81, 0x82, 1, 2, 3, 4, 5]);
        assert!(!frames.may_close());
        frames.pass(&[6]);
        assert!(frames.may_close());
        frames.pass(&GOING_AWAY);
        assert!(!frames.may_close(), "nothing follows a close");
        // An impossible length is followed nevertheless.
        let mut frames = Frames::default();
        frames.pass(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255]);
        frames.pass(&[0; 1000]);
        assert!(!frames.may_close());
    }
}
