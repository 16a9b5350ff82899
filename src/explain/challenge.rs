//! HTTP-01 challenges, which are answered from certbot's webroot before any route.

use std::io::ErrorKind;
use std::path::Path;

use http::{Method, request};

use crate::filters::exchange::path_of;
use crate::proxy;
use crate::snapshot::Bind;

/// The outcome of a request that may ask for a challenge.
pub(super) enum Challenge {
    /// The request is answered with a file: its path and content.
    Answered(String),
    /// The request continues to the routes, for this reason.
    GoesOn(String),
    /// The request does not ask for a challenge.
    None,
}

/// Looks for the answer as `proxy/http.rs` does.
pub(super) fn look(bind: &Bind, webroot: &Path, head: &request::Parts) -> Challenge {
    let Some(token) = proxy::acme_token(path_of(&head.uri)) else { return Challenge::None };
    if bind.tls {
        let why = "answered on HTTP listeners alone; an authority asks by http first";
        return Challenge::GoesOn(why.into());
    }
    if head.method != Method::GET && head.method != Method::HEAD {
        return Challenge::GoesOn("only GET and HEAD ask for one".into());
    }
    let file = webroot.join(".well-known/acme-challenge").join(token);
    let file = file.display();
    match proxy::acme_challenge(webroot, token) {
        Ok(content) => {
            let content = String::from_utf8_lossy(&content);
            Challenge::Answered(format!("{file}: {}", content.trim_end().escape_debug()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Challenge::GoesOn(format!("there is no {file}, so the routes are asked"))
        }
        Err(error) => {
            Challenge::GoesOn(format!("{file} cannot be read ({error}), so the routes are asked"))
        }
    }
}
