//! Encoders of the content codings: bytes in, encoded bytes out, piece by piece.

use std::io::{self, Write};
use std::mem;

use brotli::CompressorWriter;
use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress};

use crate::filters::coding::Coding;

/// The state of an encoder and the bytes that it has made.
///
/// The memory of an encoder does not depend on the length of the body. Levels are Envoy's.
pub(super) enum Encoder {
    /// In a box, as the others hold their state.
    Gzip(Box<Gzip>),
    Brotli(Box<CompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

/// Of zlib, which has no writer with a window.
pub(super) struct Gzip {
    compress: Compress,
    made: Vec<u8>,
}

/// Binary logarithm of the window of gzip, as in Envoy.
const GZIP_WINDOW: u8 = 12;
/// That of Brotli and Zstandard. A window is memory of the client, too.
const WINDOW: u8 = 18;
const BROTLI_QUALITY: i32 = 3;
const ZSTD_LEVEL: i32 = 3;
/// Size of the buffer inside the Brotli writer, and room that gzip is given at a time.
const ROOM: usize = 8 << 10;

impl Encoder {
    /// Creates an encoder.
    ///
    /// # Errors
    ///
    /// Fails if there is no memory.
    pub(super) fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Gzip => {
                let compress = Compress::new_gzip(Compression::default(), GZIP_WINDOW);
                Self::Gzip(Box::new(Gzip { compress, made: Vec::new() }))
            }
            Coding::Brotli => {
                let params = BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: WINDOW.into(),
                    ..BrotliEncoderParams::default()
                };
                Self::Brotli(Box::new(CompressorWriter::with_params(Vec::new(), ROOM, &params)))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(WINDOW.into())?;
                Self::Zstd(encoder)
            }
        })
    }

    /// Returns the memory of an encoder in bytes, rounded up: what 32 of them took on average,
    /// each after 1 MiB of text.
    pub(super) fn memory(coding: Coding) -> usize {
        match coding {
            Coding::Gzip => 384 << 10,
            Coding::Brotli | Coding::Zstd => 1536 << 10,
        }
    }

    /// Encodes a piece of the body.
    ///
    /// # Errors
    ///
    /// Fails if the encoder does, which leaves the body incomplete.
    pub(super) fn encode(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::Gzip(gzip) => gzip.run(piece, FlushCompress::None),
            Self::Brotli(writer) => writer.write_all(piece),
            Self::Zstd(writer) => writer.write_all(piece),
        }
    }

    /// Encodes all that the encoder has held back, so that the client can decode every byte so far.
    ///
    /// # Errors
    ///
    /// As of [`Self::encode`].
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Gzip(gzip) => gzip.run(&[], FlushCompress::Sync),
            Self::Brotli(writer) => writer.flush(),
            Self::Zstd(writer) => writer.flush(),
        }
    }

    /// Ends the encoded body and returns the rest of it.
    ///
    /// # Errors
    ///
    /// As of [`Self::encode`].
    pub(super) fn finish(self) -> io::Result<Bytes> {
        Ok(match self {
            Self::Gzip(mut gzip) => {
                gzip.run(&[], FlushCompress::Finish)?;
                gzip.made
            }
            Self::Brotli(writer) => writer.into_inner(),
            Self::Zstd(writer) => writer.finish()?,
        }
        .into())
    }

    /// Returns the number of encoded bytes that were not taken yet.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Gzip(gzip) => gzip.made.len(),
            Self::Brotli(writer) => writer.get_ref().len(),
            Self::Zstd(writer) => writer.get_ref().len(),
        }
    }

    /// Takes the encoded bytes so far.
    pub(super) fn take(&mut self) -> Bytes {
        let made = match self {
            Self::Gzip(gzip) => &mut gzip.made,
            Self::Brotli(writer) => writer.get_mut(),
            Self::Zstd(writer) => writer.get_mut(),
        };
        mem::take(made).into()
    }
}

impl Gzip {
    fn run(&mut self, mut piece: &[u8], flush: FlushCompress) -> io::Result<()> {
        loop {
            self.made.reserve(ROOM);
            let before = self.compress.total_in();
            let status = self.compress.compress_vec(piece, &mut self.made, flush)?;
            let read = usize::try_from(self.compress.total_in() - before).unwrap_or(piece.len());
            piece = &piece[read.min(piece.len())..];
            // All is out if there is room left (zlib.h, `deflate`).
            let has_room = self.made.len() < self.made.capacity();
            if status == flate2::Status::StreamEnd || piece.is_empty() && has_room {
                return Ok(());
            }
        }
    }
}
