//! What git keeps: small files of text. A large or binary file is paid for by every clone for ever.

use std::fs;
use std::path::Path;
use std::process::Command;

const MAX_BYTES: u64 = 500_000;

/// Inputs that have to be bytes, beside the pictures in docs: a few hundred each.
const BINARY: [&str; 2] = ["fuzz/seeds/", "tests/config_errors/syntax/latin1.yaml"];

/// The tracked files that should not be.
pub(crate) fn wrong(top: &Path) -> Vec<String> {
    let listed = Command::new("git").arg("-C").arg(top).args(["ls-files", "-z"]).output();
    let listed = listed.expect("git lists what it keeps");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).expect("names are UTF-8");
    let names: Vec<&str> = names.split('\0').filter(|name| !name.is_empty()).collect();
    assert!(names.contains(&"Cargo.toml"), "{names:?}");
    let judged = names.into_iter().filter_map(|name| {
        let file = top.join(name);
        // A link is as long as its target's name; a file that is being removed is none.
        let data = fs::symlink_metadata(&file).ok().filter(fs::Metadata::is_file)?;
        let bytes = if data.len() > MAX_BYTES { Vec::new() } else { fs::read(&file).ok()? };
        judge(name, data.len(), &bytes)
    });
    judged.collect()
}

fn judge(name: &str, length: u64, bytes: &[u8]) -> Option<String> {
    if length > MAX_BYTES {
        return Some(format!("{name} has {length} bytes, more than {MAX_BYTES}"));
    }
    let is_picture = name
        .strip_prefix("docs/")
        .is_some_and(|rest| rest.ends_with(".png") && !rest.contains('/'));
    let may_be = is_picture || BINARY.iter().any(|start| name.starts_with(start));
    let is_binary = bytes.contains(&0) || std::str::from_utf8(bytes).is_err();
    (is_binary && !may_be).then(|| format!("{name} is binary; only docs/*.png may be"))
}

#[test]
fn a_large_or_binary_file_is_found() {
    // (name, bytes, wrong)
    let table: [(&str, u64, &[u8], bool); 8] = [
        ("src/a.rs", 10, b"text", false),
        ("src/a.rs", MAX_BYTES, b"text", false),
        ("src/a.rs", MAX_BYTES + 1, b"", true),
        ("docs/a.png", 10, b"\x89PNG\0", false),
        ("docs/a.png", MAX_BYTES + 1, b"", true),
        ("docs/deep/a.png", 10, b"\x89PNG\0", true),
        ("tests/a.bin", 10, b"\xff\xfe", true),
        ("fuzz/seeds/server_name/a", 10, b"\xff\xfe", false),
    ];
    for (name, length, bytes, want) in table {
        assert_eq!(judge(name, length, bytes).is_some(), want, "{name} {length}");
    }
}
