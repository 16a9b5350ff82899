//! The dashboard: three files embedded in the binary. It contacts no other host.

use bytes::Bytes;

use super::answer::Answer;

const HTML: &str = include_str!("dashboard/index.html");
const CSS: &str = include_str!("dashboard/dashboard.css");
const JS: &str = include_str!("dashboard/dashboard.js");

/// Allows scripts and styles of our own files only, nothing inline, and no framing.
const POLICY: &[(&str, &str)] = &[
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
];

pub(super) fn file(path: &str) -> Option<Answer> {
    let (content_type, text) = match path {
        "/" => ("text/html; charset=utf-8", HTML),
        "/dashboard.css" => ("text/css; charset=utf-8", CSS),
        "/dashboard.js" => ("text/javascript; charset=utf-8", JS),
        _ => return None,
    };
    Some(Answer {
        content_type,
        headers: POLICY,
        ..Answer::of(Bytes::from_static(text.as_bytes()))
    })
}
