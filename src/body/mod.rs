//! HTTP messages inside the gateway: the common body type and operations on it.

mod any;
mod held;
mod replay;
mod trailers;

pub(crate) use any::{Body, BodyError, Request, Response};
pub(crate) use held::{HeldMemory, HeldShare, NotHeld, hold};
pub(crate) use replay::Replay;
pub(crate) use trailers::settle_trailers;
