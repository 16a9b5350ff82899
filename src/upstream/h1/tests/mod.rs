//! The codec with scripted backends: the tests check the bytes that the backend received and the
//! state of its connection.

mod failures;
mod requests;
mod responses;
mod streaming;
