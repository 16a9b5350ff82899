//! The codec against scripted bytes: what the backend received and what became of its connection
//! decide.

mod failures;
mod requests;
mod responses;
mod streaming;
