//! The ClientHello of a connection that may be passed on, to the reader of its one field.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edge_gateway::fuzz::server_name(bytes));
