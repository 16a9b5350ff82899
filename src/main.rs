//! The exit code; everything else is in the library.

use std::process::ExitCode;

/// Small, short-lived allocations per request are what a proxy does most.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    edge_gateway::cli::main()
}
