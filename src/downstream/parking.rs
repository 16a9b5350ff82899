//! The state that decides whether an HTTP/1 connection can be parked.
//!
//! A parked connection waits for the client without the buffers of an HTTP parser. The sweep asks
//! for it, and the task of the connection does it; see `proxy/speak_http1.rs`.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

/// Whether a connection is parked, and what would be lost if it were.
#[derive(Debug)]
pub(crate) struct Parking {
    step: AtomicU8,
    /// Number of requests that have arrived as a whole; `PARTIAL` while one has arrived in part.
    whole: AtomicU32,
    /// Bytes were written and not flushed.
    unflushed: AtomicBool,
}

const PARTIAL: u32 = u32::MAX;

/// The steps of a connection to be parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ParkingStep {
    Serving = 0,
    Asked = 1,
    Parked = 2,
}

impl Parking {
    pub(super) fn new() -> Self {
        Self { step: (ParkingStep::Serving as u8).into(), whole: 0.into(), unflushed: false.into() }
    }

    /// Records that bytes arrived: `requests` have arrived as a whole, with their bodies; `None` if
    /// the last one has arrived in part.
    pub(crate) fn arrived(&self, requests: Option<u32>) {
        self.whole.store(requests.unwrap_or(PARTIAL), Ordering::Relaxed);
    }

    /// Records that bytes were written.
    pub(crate) fn wrote(&self) {
        self.unflushed.store(true, Ordering::Relaxed);
    }

    /// Records that all bytes written so far are with the kernel.
    pub(crate) fn flushed(&self) {
        self.unflushed.store(false, Ordering::Relaxed);
    }

    /// Returns true if all requests that arrived were `opened` and nothing is left to be sent.
    pub(super) fn is_quiet(&self, opened: u32) -> bool {
        self.whole.load(Ordering::Relaxed) == opened && !self.unflushed.load(Ordering::Relaxed)
    }

    /// Asks for the connection to be parked. Returns false if it is parked or was asked already.
    pub(super) fn ask(&self) -> bool {
        let serving = self.is(ParkingStep::Serving);
        if serving {
            self.set(ParkingStep::Asked);
        }
        serving
    }

    pub(super) fn is_asked(&self) -> bool {
        self.is(ParkingStep::Asked)
    }

    pub(super) fn is_parked(&self) -> bool {
        self.is(ParkingStep::Parked)
    }

    /// Records whether the connection is parked from now on.
    pub(super) fn park(&self, is_parked: bool) {
        self.set(if is_parked { ParkingStep::Parked } else { ParkingStep::Serving });
    }

    fn is(&self, step: ParkingStep) -> bool {
        self.step.load(Ordering::Relaxed) == step as u8
    }

    fn set(&self, step: ParkingStep) {
        self.step.store(step as u8, Ordering::Relaxed);
    }
}
