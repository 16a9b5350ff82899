//! Messages as every room speaks them: the one body type, and what may be done to it anywhere.

mod any;
mod replay;
mod trailers;

pub(crate) use any::{Body, BodyError, Request, Response};
pub(crate) use replay::Replay;
pub(crate) use trailers::settle_trailers;
