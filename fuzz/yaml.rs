//! A file of configuration, to the reader of it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edge_gateway::fuzz::yaml(bytes));
