//! A tool that a test cannot do without.

use std::io::Write;

/// The hint for what `make test` installs where it can.
pub(crate) const INSTALL: &str = "run `scripts/install test`";

/// Passes `found` on. A tool that is missing fails the test where `CI` is `true`; elsewhere a line
/// on standard error says which test ran without it, also where the test passes.
///
/// `hint` says how to get the tool.
pub(crate) fn needs<T>(tool: &str, found: Option<T>, hint: &str) -> Option<T> {
    if found.is_none() {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        let line = format!("left out: {test} needs {tool}; {hint}");
        assert!(!is_ci(), "{line}");
        // Not by `eprintln`, which the harness shows of tests that fail alone.
        let _ = writeln!(std::io::stderr(), "{line}");
    }
    found
}

fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|ci| ci == "true")
}
